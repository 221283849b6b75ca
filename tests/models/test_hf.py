"""Checkpoints in Hugging Face layout: in and out without a bit changed, and clear words for bad ones."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
from s2l_jax.errors import InputError
from s2l_jax.models import hf, weights
from s2l_jax.models.parameters import flatten_params, model_params, parameter_shapes
from s2l_jax.parallel.placement import load_model, model_shardings, random_params
from tests.support.paths import GOLDEN

GPT_NEOX = GOLDEN / "gpt_neox"
CONFIG = json.loads((GPT_NEOX / "config.json").read_text())
FUSED = "gpt_neox.layers.1.attention.query_key_value.weight"


@pytest.fixture
def directory(tmp_path):
    return pathlib.Path(shutil.copytree(GPT_NEOX, tmp_path / "model"))


@pytest.fixture
def load(one_device_mesh):
    return lambda path, **options: load_model(str(path), one_device_mesh, **options)


def rewrite(directory, change=lambda tensors: None, **config):
    """Change the tensors in place and fields of config.json."""
    tensors = load_file(directory / weights.WEIGHTS)
    change(tensors)
    save_file(tensors, directory / weights.WEIGHTS)
    (directory / "config.json").write_text(json.dumps(CONFIG | config))


def shard(directory):
    """Split the weights over two shards with an index; returns the index."""
    tensors = load_file(directory / weights.WEIGHTS)
    (directory / weights.WEIGHTS).unlink()
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in files.items():
        save_file({name: tensors[name] for name in some}, directory / file)
    index = {"metadata": {}, "weight_map": {n: file for file, some in files.items() for n in some}}
    (directory / weights.INDEX).write_text(json.dumps(index))
    return index


def same_params(left, right):
    left, right = flatten_params(model_params(left)), flatten_params(model_params(right))
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("options", [{}, {"attention_bias": False}, {"tie_word_embeddings": True}], ids=str)
def test_round_trip_keeps_every_bit(options, residual, directory, load, tmp_path):
    def drop(tensors):
        for name in list(tensors):
            biases = ("query_key_value.bias", "attention.dense.bias")
            unbiased = "attention_bias" in options and name.endswith(biases)
            if unbiased or ("tie_word_embeddings" in options and name == "embed_out.weight"):
                del tensors[name]

    rewrite(directory, drop, use_parallel_residual=residual, **options)
    model = load(directory)
    hf_config = hf.read_config(directory)
    hf.save_model(tmp_path / "out", model_params(model), model.config, hf_config, dtype=jnp.float32)
    before, after = (load_file(d / weights.WEIGHTS) for d in (directory, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert after[name].tobytes() == tensor.tobytes(), name
    assert hf.load_config(tmp_path / "out") == model.config
    written = hf.read_config(tmp_path / "out")
    assert written == CONFIG | {"use_parallel_residual": residual, **options}


def test_bfloat16_round_trip_keeps_every_bit(directory, load, tmp_path):
    model, config = load(directory), hf.read_config(directory)
    hf.save_model(tmp_path / "a", model_params(model), model.config, config, dtype=jnp.bfloat16)
    wide = load(tmp_path / "a")
    assert flatten_params(model_params(wide))["embed/embedding"].dtype == jnp.float32
    narrow = load(tmp_path / "a", dtype=jnp.bfloat16)
    assert flatten_params(model_params(narrow))["embed/embedding"].dtype == jnp.bfloat16
    for number, again in enumerate((wide, narrow)):
        config = hf.read_config(tmp_path / "a")
        assert config["dtype"] == "bfloat16"
        out = tmp_path / f"b{number}"
        hf.save_model(out, model_params(again), again.config, config, dtype=jnp.bfloat16)
        assert (out / weights.WEIGHTS).read_bytes() == (tmp_path / "a" / weights.WEIGHTS).read_bytes()


def test_shards_with_an_index_hold_the_same_model(directory, load):
    whole = load(directory)
    shard(directory)
    same_params(load(directory), whole)


def test_missing_shards_are_named(directory, load):
    shard(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"index\.json.*model-00002-of-00002\.safetensors"):
        load(directory)


def test_a_tensor_that_its_shard_lacks_is_named(directory, load):
    index = shard(directory)
    file = directory / index["weight_map"][FUSED]
    tensors = load_file(file)
    del tensors[FUSED]
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"{FUSED} is missing"):
        load(directory)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_index_is_named(text, directory, load):
    shard(directory)
    (directory / weights.INDEX).write_text(text)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json: not an index"):
        load(directory)


def test_all_tensors_that_do_not_fit_are_listed(directory, load):
    def change(tensors):
        del tensors["gpt_neox.final_layer_norm.bias"]
        del tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"]
        tensors[FUSED] = tensors[FUSED][:-1]
        tensors["gpt_neox.embed_in.weight"] = tensors["gpt_neox.embed_in.weight"].T.copy()
        tensors["gpt_neox.layers.2.mlp.dense_h_to_4h.bias"] = np.zeros(48, np.float32)
        tensors["lm_head.weight"] = np.zeros((64, 32), np.float32)

    rewrite(directory, change)
    with pytest.raises(InputError) as caught:
        load(directory)
    assert str(caught.value).splitlines()[0].startswith(str(directory))
    assert sorted(line.strip() for line in str(caught.value).splitlines()[1:]) == [
        "gpt_neox.embed_in.weight has shape [32, 64], config.json asks for [64, 32]",
        "gpt_neox.final_layer_norm.bias is missing",
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight is missing",
        f"{FUSED} has shape [95, 32], config.json asks for [96, 32]",
        "gpt_neox.layers.2.mlp.dense_h_to_4h.bias is not part of a gpt_neox model with this config.json",
        "lm_head.weight is not part of a gpt_neox model with this config.json",
    ]


def test_a_config_of_another_size_names_its_tensors(directory, load):
    rewrite(directory, intermediate_size=50)
    with pytest.raises(InputError, match=r"dense_4h_to_h\.weight has shape \[32, 48\].*\[32, 50\]"):
        load(directory)


def test_buffers_and_a_tied_head_are_passed_over(directory, load):
    before = load(directory)

    def buffers(tensors):
        tensors["gpt_neox.layers.0.attention.bias"] = np.ones((1, 1, 8, 8), np.bool_)
        tensors["gpt_neox.layers.0.attention.masked_bias"] = np.float32([-1e9])
        tensors["gpt_neox.layers.1.attention.rotary_emb.inv_freq"] = np.ones(2, np.float32)

    rewrite(directory, buffers)
    same_params(load(directory), before)

    def tie(tensors):
        tensors["embed_out.weight"] = tensors["gpt_neox.embed_in.weight"]

    rewrite(directory, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"embed_out\.weight is not the embedding.*tie_word_embeddings"):
        load(directory)
    with pytest.raises(InputError, match="is not the embedding"):  # before anything is trained, too
        weights.check_weights(directory, hf.load_config(directory))
    rewrite(directory, tie, tie_word_embeddings=True)
    assert "lm_head" not in model_params(load(directory))


def test_strange_dtypes_are_listed(directory, load):
    def quantise(tensors):
        tensors["gpt_neox.final_layer_norm.bias"] = np.zeros(32, np.int8)
        tensors[FUSED] = tensors[FUSED].astype(np.int16)

    rewrite(directory, quantise)
    with pytest.raises(InputError, match=r"is stored as I8.*") as caught:
        load(directory)
    assert f"{FUSED} is stored as I16" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "int8", "float8_e4m3fn", "bogus"])
def test_a_dtype_that_cannot_be_had_is_refused(dtype, directory, one_device_mesh):
    with pytest.raises(InputError, match=f"dtype {dtype} is not supported; choose one of float32, bfloat16"):
        load_model(str(directory), one_device_mesh, dtype=dtype)


def test_fields_that_nobody_reads_and_dropout_are_named(directory):
    rewrite(directory, attention_dropout=0.25, mystery=3, use_cache=True, _model_name_or_path="own")
    with pytest.warns(UserWarning, match="not used|dropout") as caught:
        hf.load_config(directory)
    messages = sorted(str(warning.message).removeprefix(f"{directory}: ") for warning in caught)
    assert messages == [
        "not known and not used: mystery",
        "training is without the dropout it names (attention_dropout=0.25)",
    ]


def test_a_large_model_is_written_in_shards(directory, load, tmp_path, monkeypatch):
    model = load(directory)
    options = (model_params(model), model.config, CONFIG)
    hf.save_model(tmp_path / "whole", *options, dtype=jnp.float32)
    monkeypatch.setattr(weights, "SHARD_BYTES", 20_000)
    hf.save_model(tmp_path / "shards", *options, dtype=jnp.float32)
    files = sorted(tmp_path.glob("shards/*.safetensors"))
    assert len(files) > 2
    assert [f.name for f in files] == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    assert max(f.stat().st_size for f in files) < 22_000
    whole = load_file(tmp_path / "whole" / weights.WEIGHTS)
    parts = {name: tensor for f in files for name, tensor in load_file(f).items()}
    assert parts.keys() == whole.keys()
    index = json.loads((tmp_path / "shards" / weights.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    same_params(load(tmp_path / "shards"), model)


def test_a_smaller_export_replaces_a_sharded_one(directory, load, tmp_path, monkeypatch):
    model = load(directory)
    other = jax.tree.map(lambda p: p + 1, model_params(model))
    with monkeypatch.context() as patched:
        patched.setattr(weights, "SHARD_BYTES", 20_000)
        hf.save_model(tmp_path, other, model.config, CONFIG, dtype=jnp.float32)
    hf.save_model(tmp_path, model_params(model), model.config, CONFIG, dtype=jnp.float32)
    assert sorted(f.name for f in tmp_path.glob("*.safetensors*")) == [weights.WEIGHTS]
    same_params(load(tmp_path), model)
    mask = (tmp_path / "config.json").stat().st_mode
    assert (tmp_path / weights.WEIGHTS).stat().st_mode == mask, "as readable as the rest"


def test_the_index_says_which_file_holds_a_tensor(directory, load):
    before = load(directory)
    index = shard(directory)
    name, file = next(iter(index["weight_map"].items()))
    other = next(f for f in index["weight_map"].values() if f != file)
    tensors = load_file(directory / other)
    save_file(tensors | {name: np.zeros_like(load_file(directory / file)[name])}, directory / other)
    same_params(load(directory), before)


def test_a_shard_that_the_index_forgot_is_named(directory, load):
    index = shard(directory)
    file = "model-00002-of-00002.safetensors"
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if f != file}
    (directory / weights.INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=rf"is missing(.|\n)*files here that were not looked at: {file}"):
        load(directory)


def test_the_vocabulary_is_padded_in_memory_alone(directory, load, tmp_path):
    model = load(directory)
    flat = flatten_params(model_params(model))
    assert (model.config.vocab_size, model.config.padded_vocab_size) == (64, 128)
    assert flat["embed/embedding"].shape == (128, 32)
    assert not np.asarray(flat["embed/embedding"][64:]).any()
    assert not np.asarray(flat["lm_head/kernel"][:, 64:]).any()
    hidden = jnp.ones((2, 32))
    assert model.logits(hidden).shape == (2, 64)
    assert (np.asarray(model.padded_logits(hidden))[:, 64:] == -np.inf).all()
    hf.save_model(tmp_path / "out", model_params(model), model.config, CONFIG, dtype=jnp.float32)
    assert load_file(tmp_path / "out" / weights.WEIGHTS)["embed_out.weight"].shape == (64, 32)


def test_the_generation_config_is_kept(directory, load, tmp_path):
    model = load(directory)
    (directory / hf.GENERATION).write_text('{"temperature": 0.5}')
    options = (model_params(model), model.config, CONFIG)
    hf.save_model(tmp_path / "out", *options, dtype=jnp.float32, source=directory)
    assert json.loads((tmp_path / "out" / hf.GENERATION).read_text()) == {"temperature": 0.5}


def test_a_directory_without_weights_says_so(directory, load):
    (directory / weights.WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors.*random") as caught:
        load(directory)
    assert "pytorch_model.bin alone must be converted once" in str(caught.value)
    assert "save_pretrained" in str(caught.value)


def test_damaged_weights_are_named(directory, load):
    data = (directory / weights.WEIGHTS).read_bytes()
    (directory / weights.WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable safetensors file"):
        load(directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": ', r"config\.json: not valid JSON"),
        ("[1]", r"config\.json: a JSON object is expected, not list"),
        ("{}", "model_type '' is not supported; supported: .*gpt_neox"),
        (json.dumps(CONFIG | {"model_type": "bloom"}), "model_type 'bloom' is not supported"),
        # A checkpoint from elsewhere must not name code to be run.
        (json.dumps(CONFIG | {"model_type": "os:getcwd"}), "model_type 'os:getcwd' is not supported"),
        (json.dumps({"model_type": "gpt_neox"}), "the field 'hidden_size' is missing"),
        (json.dumps(CONFIG | {"hidden_act": "swish1"}), "activation 'swish1' is not supported.*gelu"),
        (json.dumps(CONFIG | {"quantization_config": {"bits": 4}}), "quantised weights are not supported"),
        (json.dumps(CONFIG | {"num_attention_heads": 5}), "32 does not divide into 5"),
        (json.dumps(CONFIG | {"num_attention_heads": "4"}), "a field has a value of the wrong kind"),
        (json.dumps(CONFIG | {"num_attention_heads": 0}), "a field has a value of the wrong kind"),
        (json.dumps(CONFIG | {"rope_scaling": [1]}), "a field has a value of the wrong kind"),
        (json.dumps(CONFIG | {"rope_parameters": {"rope_type": "yarn"}}), "rope type 'yarn'"),
        (
            json.dumps({**CONFIG, "rope_parameters": None, "rope_scaling": {"type": "linear"}}),
            "the field 'factor' is missing",
        ),
    ],
)
def test_a_bad_config_is_explained(text, message, directory, load):
    (directory / "config.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load(directory)
    assert str(directory) in str(caught.value)


def test_a_missing_config_is_named(directory, load):
    (directory / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load(directory)


def test_loading_onto_a_mesh_gives_each_device_its_part_alone(cube_mesh, load):
    spread, whole = load_model(str(GPT_NEOX), cube_mesh), load(GPT_NEOX)
    same_params(spread, whole)
    shardings = model_shardings(cube_mesh, spread.config)
    for path, leaf in flatten_params(model_params(spread)).items():
        assert leaf.sharding.is_equivalent_to(shardings[path], leaf.ndim), path
        # fsdp and tensor are 2 each; the data axis holds copies.
        parts = {"kernel": 4, "embedding": 4}.get(path.rsplit("/", 1)[1], 1)
        for piece in leaf.addressable_shards:
            assert piece.data.size <= leaf.size // parts, path


def test_random_parameters_do_not_depend_on_the_mesh(one_device_mesh, cube_mesh):
    config = hf.load_config(GPT_NEOX)
    jax.clear_caches()  # of programs that other tests had compiled without optimisations
    one, cube = (
        flatten_params(random_params(config, mesh, jax.random.key(3)))
        for mesh in (one_device_mesh, cube_mesh)
    )
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, cube[path], err_msg=path)
    assert one.keys() == parameter_shapes(config).keys()


@pytest.fixture(scope="module")
def tokenizer_directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return path


def test_a_saved_model_keeps_its_tokenizer(tokenizer_directory, load, tmp_path):
    model, tokenizer = load(GPT_NEOX), hf.load_tokenizer(tokenizer_directory)
    hf.save_model(tmp_path, model_params(model), model.config, CONFIG, dtype=jnp.float32, tokenizer=tokenizer)
    again = hf.load_tokenizer(tmp_path)
    text = "Copy: QXZ, 12 + 7 = 19"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.eos_token_id == tokenizer.eos_token_id
    same_params(load(tmp_path), model)


def test_a_directory_without_tokenizer_says_what_it_needs(directory):
    with pytest.raises(InputError, match=r"no tokeniser.*tokenizer\.json"):
        hf.load_tokenizer(directory)


def test_a_tokenizer_without_end_of_sequence_is_refused(tokenizer_directory, tmp_path):
    shutil.copytree(tokenizer_directory, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"no eos_token.*tokenizer_config\.json"):
        hf.load_tokenizer(tmp_path)


def test_transformers_loads_an_export_and_has_our_logits(load, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = load(GPT_NEOX)
    params = jax.tree.map(lambda p: p * 1.1 + 0.01, model_params(model))
    older = {k: v for k, v in CONFIG.items() if k not in ("rope_parameters", "dtype")}
    older |= {"rotary_pct": 0.5, "rotary_emb_base": 500, "torch_dtype": "float16"}
    hf.save_model(tmp_path, params, model.config, older, dtype=jnp.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.float32
    tokens = np.arange(12)[None] * 5 % 64
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    model = load(tmp_path)
    row = tokens, np.arange(12)[None], np.ones((1, 12), np.int32)
    got = jax.jit(lambda model, *row: model.logits(model(*row)))(model, *row)
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())
