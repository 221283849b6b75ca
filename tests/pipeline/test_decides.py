"""Each field changed under a finished workdir: refused, accepted or made anew, as the schema says."""

import json
import os
import shutil

import pytest

from s2l_jax.config import find_field, run
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.plan import STAGES
from tests.support.changed_fields import (
    FIELDS,
    NAMED,
    changed,
    config_of,
    content,
    finish,
    is_active,
    one_device_unless_more_are_named,
    write_files,
)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def files(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def make_config(files, tiny_checkpoint):
    return lambda: config_of(files, tiny_checkpoint)


@pytest.fixture(scope="module")
def finished(files, make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("decides") / "run"
    with one_device_unless_more_are_named():
        finish(workdir, make_config(), files)
        yield workdir


@pytest.fixture(scope="module")
def run_again(finished):
    def again(config, workdir):
        found = run_pipeline(config, workdir, stages=STAGES[:-1], name="decides")
        return {key: value for key, value in found.items() if key != "timing"}

    before = json.loads((finished / "results.json").read_text())
    before.pop("timing")
    return again, before


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_changes(name, finished, make_config, files, run_again, tmp_path):
    again, results = run_again
    field, config = find_field(name), changed(make_config(), name, files)
    workdir = finished
    if field.adds or name == "trajectories.path":  # which leaves a record of what was imported
        workdir = shutil.copytree(finished, tmp_path / "run")
    before = content(workdir)
    if field.adds:
        found = again(config, workdir)
        after = content(workdir)
        assert set(after) > set(before)
        assert {file: after[file] for file in before} == before
        for part in ("pool", "proxy", "trajectories"):
            assert found[part] == results[part]
        return
    if field.decides and is_active(name, config):
        with pytest.raises(InputError) as refused:
            again(config, workdir)
        assert NAMED.get(name, name) in str(refused.value)
    else:
        assert again(config, workdir) == results
    if workdir == finished:
        assert content(workdir) == before


def test_another_run_is_made_and_all_else_stays(finished, make_config, run_again, tmp_path):
    again, _ = run_again
    workdir = shutil.copytree(finished, tmp_path / "run")
    before = content(workdir)
    config = make_config()
    config.selection.runs["more"] = run(method="random", seeds=(3,), train_target=False)
    assert "more-seed3" in again(config, workdir)["selections"]
    after = content(workdir)
    assert {file: after[file] for file in before} == before
    assert {file.split("/")[1] for file in set(after) - set(before)} == {"more-seed3"}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_model_replaced_under_its_path_is_refused(finished, make_config, run_again, tiny_checkpoint, file):
    again, results = run_again
    path = tiny_checkpoint / file
    whole, times = path.read_bytes(), path.stat()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    if file == "config.json":
        changed = json.dumps(json.loads(whole) | {"rotary_emb_base": 999}).encode()
    try:
        path.write_bytes(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(InputError, match=rf"proxy\.files\.{file}: '\w+' before, '\w+' now"):
            again(make_config(), finished)
    finally:
        path.write_bytes(whole)  # at another time, and the same model
    assert again(make_config(), finished) == results
