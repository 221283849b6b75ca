"""Which files a checkpoint's weights are: those that transformers loads; and telling them from others."""

import json
import os
import shutil

import numpy as np
import pytest
from absl import logging
from etils import epath
from safetensors.numpy import load_file, save_file

from s2l_jax.errors import InputError
from s2l_jax.models import weight_files
from s2l_jax.models.parameters import flatten_params, model_params
from s2l_jax.models.weight_files import INDEX, WEIGHTS, identity, index_of
from s2l_jax.parallel.placement import load_model
from tests.support.paths import GOLDEN

SHARDS = [f"model-{n}-of-00002.safetensors" for n in ("00001", "00002")]
EMBEDDING = "gpt_neox.embed_in.weight"


@pytest.fixture
def directory(tmp_path):
    return epath.Path(shutil.copytree(GOLDEN / "gpt_neox", tmp_path / "model"))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda form, *args: lines.append(form % args))
    weight_files._say_once.cache_clear()
    return lines


def add_shards(directory, change=lambda tensor: tensor, write=True):
    """Shards and an index beside the single file, of other weights."""
    tensors = load_file(directory / WEIGHTS)
    names = sorted(tensors)
    parts = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
    for file, some in parts.items() if write else ():
        save_file({name: change(tensors[name]) for name in some}, str(directory / file))
    weight_map = {name: file for file, some in parts.items() for name in some}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def embedding(directory, mesh):
    return np.asarray(flatten_params(model_params(load_model(str(directory), mesh)))["embed/embedding"])


@pytest.mark.parametrize("write", [True, False])
def test_the_single_file_comes_before_an_older_index(directory, one_device_mesh, said, write):
    """transformers leaves an old index when it saves into one file what was in shards."""
    before = embedding(directory, one_device_mesh)
    add_shards(directory, np.zeros_like, write)
    assert np.array_equal(embedding(directory, one_device_mesh), before)
    if write:
        (line,) = said
        assert all(name in line for name in (str(directory), WEIGHTS, *SHARDS))
    else:
        assert not said


@pytest.mark.parametrize("single", [True, False])
def test_what_is_loaded_is_what_transformers_loads(directory, one_device_mesh, single):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    add_shards(directory, lambda tensor: tensor + np.float32(1))
    if not single:
        (directory / WEIGHTS).unlink()
    model = transformers.AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32)
    theirs = model.get_input_embeddings().weight.detach().numpy()
    ours = embedding(directory, one_device_mesh)
    assert np.array_equal(ours[: len(theirs)], theirs)


def test_a_file_that_the_config_names_comes_first(directory, one_device_mesh, said):
    before = embedding(directory, one_device_mesh)
    (directory / WEIGHTS).rename(directory / "mine.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"transformers_weights": "mine.safetensors"}))
    assert np.array_equal(embedding(directory, one_device_mesh), before)
    assert not said


@pytest.mark.parametrize("name", ["../model.safetensors", "/tmp/m.safetensors", "a/../../m.safetensors", 3])
def test_an_index_names_files_of_its_folder_only(directory, name):
    add_shards(directory)
    (directory / WEIGHTS).unlink()
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"][EMBEDDING] = name
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json: names .*, which is no file in its folder"):
        index_of(directory)


def test_shards_without_their_index(directory):
    add_shards(directory)
    for name in (WEIGHTS, INDEX):
        (directory / name).unlink()
    with pytest.raises(InputError, match=rf"{SHARDS[0]}, {SHARDS[1]} but no {INDEX}"):
        index_of(directory)


def test_a_git_lfs_pointer_is_called_one(directory):
    (directory / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=r"model.safetensors: a Git LFS pointer.*git lfs pull"):
        identity(directory)


def test_a_config_that_is_no_object_names_no_weights(directory):
    (directory / "config.json").write_text("[]")
    assert index_of(directory).files == [WEIGHTS]


def test_identity_goes_by_content(directory, tmp_path):
    before = identity(directory)
    assert list(before) == [WEIGHTS]
    copy = epath.Path(shutil.copytree(directory, tmp_path / "copy"))
    os.utime(copy / WEIGHTS, (1, 1))
    assert identity(copy) == before
    for name in ("gpt_neox.final_layer_norm.bias", EMBEDDING, "embed_out.weight"):
        tensors = load_file(directory / WEIGHTS)
        tensors[name].flat[-1] += 1
        save_file(tensors, str(copy / WEIGHTS), metadata={"format": "pt"})
        assert identity(copy) != before, name


def test_identity_reads_the_ends_of_large_tensors(directory):
    tensors = {"a": np.zeros(2**20, np.float32), "b": np.zeros(3, np.float32)}
    found = {}
    for place in (None, 0, 2**20 - 1, 2**19):
        tensors["a"][:] = 0
        if place is not None:
            tensors["a"][place] = 1
        save_file(tensors, str(directory / WEIGHTS))
        found[place] = identity(directory)[WEIGHTS]
    assert found[None] == found[2**19]  # said in its docstring
    assert len(set(found.values())) == 3
