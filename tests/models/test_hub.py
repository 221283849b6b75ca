"""Checkpoints by their id on the hub: what is looked up and downloaded, and what is said without a net."""

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from s2l_jax.errors import InputError
from s2l_jax.models import hf
from tests.support.paths import GOLDEN


@pytest.mark.parametrize("error", [ConnectionError("no route to host"), RuntimeError()])
def test_an_unreachable_hub_says_how_to_use_a_local_directory(error, monkeypatch):
    def unreachable(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"owner/name.*hf download.*directory's path"):
        hf.resolve("owner/name")


def test_a_path_that_is_no_hub_id_is_not_looked_up(monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    for path in ("./missing", "/missing/model", "a/b/c", "../x", "pythia-70m", "pythia-70m@main"):
        with pytest.raises(InputError, match="no such checkpoint directory"):
            hf.resolve(path)


def test_a_misspelt_path_below_a_folder_that_is_here_is_not_looked_up(monkeypatch, tmp_path):
    (tmp_path / "models" / "pythia").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match=r"models/pithia: no such checkpoint directory in models/.* pythia"):
        hf.resolve("models/pithia")


@pytest.mark.parametrize(
    ("name", "revision"),
    [("owner/name", None), ("owner/name@step1000", "step1000"), ("owner/name@pr/1", "pr/1")],
)
def test_a_hub_id_is_downloaded_without_pytorch_files(name, revision, monkeypatch):
    def download(repo, allow_patterns, ignore_patterns, **options):
        assert repo == "owner/name"
        assert options == {"revision": revision}
        files = ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.safetensors"]
        files += ["consolidated.safetensors", "tokenizer.json", "model-00001-of-00002.safetensors"]
        kept = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        expected = {"config.json", "model.safetensors", "tokenizer.json", "model-00001-of-00002.safetensors"}
        assert set(kept) == expected
        return str(GOLDEN / "gpt_neox")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hf.load_config(hf.resolve(name)).vocab_size == 64
