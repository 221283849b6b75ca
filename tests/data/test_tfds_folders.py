"""A data folder runs no code: TFDS would import the classes that a features.json names."""

import contextlib
import io
import json
import shutil
import sys

import pytest

from s2l_jax import integrity
from s2l_jax.data.pool import read_rows
from s2l_jax.data.prepared import PreparedPool
from s2l_jax.data.tfds_folders import check_classes
from s2l_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")

ROWS = [{"instruction": "Add 1 and 2.", "output": "3"}]
TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a prepared dataset."""

    class Made(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = "made_here"

        def _info(self):
            features = dict.fromkeys(ROWS[0], tfds.features.Text())
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": enumerate(ROWS)}

        def _generate_examples(self):
            raise NotImplementedError

    with contextlib.redirect_stdout(io.StringIO()):
        builder = Made(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
        builder.download_and_prepare()
    return builder.data_dir


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that must not be imported."""
    (tmp_path / "trap_module.py").write_text("Text = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "trap_module.Text"
    assert "trap_module" not in sys.modules


def with_class(folder, name, spelling, copy):
    """A copy of the dataset in which a feature has another class."""
    shutil.copytree(folder, copy)
    features = json.loads((copy / "features.json").read_text())
    inner = features["featuresDict"]["features"]["output"]
    del inner["pythonClassName"]
    inner[spelling] = name
    (copy / "features.json").write_text(json.dumps(features))
    return copy


@pytest.mark.parametrize("spelling", ["pythonClassName", "python_class_name"])
def test_a_pool_with_a_class_from_elsewhere_is_refused(prepared, tmp_path, trap, spelling):
    folder = with_class(prepared, trap, spelling, tmp_path / "copy")
    for path in (str(folder), f"tfds:{folder}"):
        with pytest.raises(InputError, match=r"copy/features.json names the class 'trap_module.Text'"):
            list(read_rows(path))


def test_a_dataset_by_name_is_looked_at_where_tfds_would_find_it(prepared, tmp_path, trap, monkeypatch):
    from tensorflow_datasets.core.utils import file_utils

    with_class(prepared, trap, "pythonClassName", tmp_path / "made_here" / "1.0.0")
    monkeypatch.setattr(file_utils, "list_data_dirs", lambda: [str(tmp_path)])
    with pytest.raises(InputError, match=r"made_here/1.0.0/features.json names the class"):
        list(read_rows("tfds:made_here"))


@pytest.mark.parametrize("name", ["huggingface:glue", "kaggle:other/set", "../made", "made --flag"])
def test_names_that_tfds_fetches_code_for(name, monkeypatch):
    monkeypatch.setattr(tfds, "data_source", lambda *args, **options: pytest.fail("TFDS was asked"))
    with pytest.raises(InputError, match="neither a folder nor the name of a TFDS dataset"):
        list(read_rows(f"tfds:{name}"))


def test_a_workdirs_own_pool_is_looked_at_too(tmp_path, trap):
    from s2l_jax.data.pool import PoolRow
    from s2l_jax.data.prepared import TokenizeSettings, prepare

    row = PoolRow(1, "q", "", "a", "all", {"instruction": "q", "output": "a"}, "")
    prepare(tmp_path / "pool", lambda: [row], None, TokenizeSettings("plain", "separate", 9))
    assert len(PreparedPool(tmp_path / "pool")) == 1
    (file,) = (tmp_path / "pool").glob("**/features.json")
    file.write_text(file.read_text().replace("tensorflow_datasets.core.features.text_feature.Text", trap))
    manifest = integrity.read_json(tmp_path / "pool" / "manifest.json", "")
    manifest["digests"] |= integrity.digests(tmp_path / "pool", manifest["digests"])  # as who made it can
    integrity.write_json(tmp_path / "pool" / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"features.json names the class 'trap_module.Text'"):
        PreparedPool(tmp_path / "pool").read([0])


LEGACY = {"type": "evil.mod.Text", "content": {}}


@pytest.mark.parametrize(
    "content",
    [
        LEGACY,
        {"type": "tensorflow_datasets.core.features.FeaturesDict", "content": {"a": LEGACY}},
        {**TEXT, "jsonFeature": {"json": json.dumps({"a": [LEGACY]})}},
        {**TEXT, "sequence": {"feature": {"python_class_name": "tensorflow_datasets_evil.Text"}}},
        {"python_class_name": "evil.Text", **TEXT},
        {"pythonClassName": "tensorflow_datasets.core.features.../evil.Text"},
        {"pythonClassName": ["evil.Text"]},
    ],
)
def test_wherever_the_class_stands(tmp_path, content):
    (tmp_path / "features.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="must not run code"):
        check_classes(tmp_path / "features.json")


def test_columns_may_be_called_type_and_content(tmp_path):
    features = {"featuresDict": {"features": {"type": TEXT, "content": TEXT}}}
    own = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    (tmp_path / "features.json").write_text(json.dumps(own | features))
    check_classes(tmp_path / "features.json")


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(InputError, match=r"features.json is not JSON"):
        check_classes(tmp_path / "features.json")
