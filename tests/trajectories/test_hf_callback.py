"""The callback that writes a trajectory store from the Hugging Face Trainer."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.data.pool import read_rows
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.models import hf
from s2l_jax.parallel.placement import load_model
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.store import TrajectoryStore
from s2l_jax.trajectories.sweep import example_losses

pytestmark = pytest.mark.long

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from s2l_jax.trajectories.hf_callback import TrajectoryCallback, length_sorted_batches  # noqa: E402

LENGTH = 96  # tokens
OPTIONS = {"prompt": "plain", "max_length": LENGTH}
ROWS = pool_rows(30)
ROWS.insert(3, {"instruction": "count " * LENGTH, "output": "1"})  # its response is cut away
CUT = 3


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return hf.load_tokenizer(tiny_checkpoint)


def train(checkpoint, tokenizer, folder, callback, *, resume=None, dropout=0.0, **arguments):
    """Six optimiser steps of two batches each, a checkpoint at every other step."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, hidden_dropout=dropout)
    defaults = {
        "max_steps": 6,
        "save_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "logging_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
        "use_cpu": True,
    }
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(output_dir=str(folder), **defaults | arguments),
        train_dataset=TrajectoryCallback("unused", ROWS, tokenizer, **OPTIONS).examples,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8),
        callbacks=[callback] if callback else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model


def our_losses(checkpoint, mesh, tokenizer, **options):
    model = load_model(str(checkpoint), mesh)
    return example_losses(model, tokenizer, ROWS, **OPTIONS, **options)


@pytest.fixture(scope="module")
def finished(tiny_checkpoint, tokenizer, tmp_path_factory):
    """A run with a column before training and at every other step."""
    folder = tmp_path_factory.mktemp("finished")
    callback = TrajectoryCallback(
        folder / "t.zarr", ROWS, tokenizer, every=2, step_zero=True, **OPTIONS, batch_tokens=300
    )
    model = train(tiny_checkpoint, tokenizer, folder, callback, dropout=0.1)
    return folder, model


@pytest.fixture(scope="module")
def swept(finished, tiny_checkpoint, tokenizer, one_device_mesh):
    """Our own sweep of the same checkpoints, [N, 4]."""
    checkpoints = [tiny_checkpoint, *(finished[0] / f"checkpoint-{step}" for step in (2, 4, 6))]
    return np.stack([our_losses(path, one_device_mesh, tokenizer) for path in checkpoints], axis=1)


def test_losses_equal_our_own_sweep(finished, swept, tmp_path):
    loaded = load_trajectories(finished[0] / "t.zarr")
    assert loaded.steps.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(loaded.losses, swept, atol=1e-4)
    assert np.abs(np.diff(swept, axis=1)).max(axis=0).min() > 0.1, "each column is of other weights"
    assert not loaded.losses[CUT].any()
    assert (np.delete(loaded.losses, CUT, axis=0) > 0.1).all()


def test_ids_are_the_pools(finished, tmp_path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert load_trajectories(finished[0] / "t.zarr").ids.tolist() == [row.id for row in read_rows(pool)]


def test_training_is_as_without_it(finished, tiny_checkpoint, tokenizer, tmp_path):
    """Dropout draws the same masks, and weights end the same."""
    alone = train(tiny_checkpoint, tokenizer, tmp_path, None, dropout=0.1)
    model = finished[1]
    assert model.training == alone.training
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


class TestResuming:
    def copied(self, finished, path):
        """The finished store, with a mark in each column."""
        before = load_trajectories(finished[0] / "t.zarr")
        attributes = json.loads((finished[0] / "t.zarr" / "zarr.json").read_text())["attributes"]
        store = TrajectoryStore.create(path, before.ids, attributes)
        for step in before.steps:
            store.append(step, np.full(len(ROWS), 100.0 + step))
        return before.losses

    def test_columns_up_to_the_checkpoint_stay(self, finished, tiny_checkpoint, tokenizer, tmp_path):
        losses = self.copied(finished, tmp_path / "t.zarr")
        callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS, tokenizer, every=2, **OPTIONS)
        # The Trainer restores no output layer of a GPT-NeoX (transformers 5.23): `from_pretrained` does.
        checkpoint = str(finished[0] / "checkpoint-4")
        train(checkpoint, tokenizer, tmp_path, callback, resume=checkpoint, dropout=0.1)
        loaded = load_trajectories(tmp_path / "t.zarr")
        assert loaded.steps.tolist() == [0, 2, 4, 6]
        assert loaded.losses[0, :3].tolist() == [100, 102, 104]
        np.testing.assert_allclose(loaded.losses[:, 3], losses[:, 3], atol=1e-5)

    def test_a_column_that_a_kill_left_out_is_made(self, finished, tiny_checkpoint, tokenizer, tmp_path):
        """Columns go by checkpoints, and that of the last one is missing."""
        losses = self.copied(finished, tmp_path / "t.zarr")
        TrajectoryStore(tmp_path / "t.zarr").drop_after(2)
        callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS, tokenizer, every=0, **OPTIONS)
        checkpoint = str(finished[0] / "checkpoint-4")
        train(checkpoint, tokenizer, tmp_path, callback, resume=checkpoint, dropout=0.1)
        loaded = load_trajectories(tmp_path / "t.zarr")
        assert loaded.steps.tolist() == [0, 2, 4, 6]
        np.testing.assert_allclose(loaded.losses[:, 2:], losses[:, 2:], atol=1e-5)

    def test_another_run_does_not_overwrite_it(self, finished, tiny_checkpoint, tokenizer, tmp_path):
        self.copied(finished, tmp_path / "t.zarr")
        callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS, tokenizer, every=2, **OPTIONS)
        with pytest.raises(InputError, match=r"columns up to step 6, .* starts at 0"):
            train(tiny_checkpoint, tokenizer, tmp_path, callback)
        assert load_trajectories(tmp_path / "t.zarr").losses[0].tolist() == [100, 102, 104, 106]

    def test_other_examples(self, finished, tiny_checkpoint, tokenizer, tmp_path):
        self.copied(finished, tmp_path / "t.zarr")
        callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS[1:], tokenizer, **OPTIONS)
        with pytest.raises(InputError, match="31 examples with other ids"):
            train(tiny_checkpoint, tokenizer, tmp_path, callback)


class TestTokenizedExamples:
    def examples(self, tokenizer, padded):
        ours = TrajectoryCallback("unused", ROWS, tokenizer, **OPTIONS).examples
        rows = [dict(ours[number]) for number in range(len(ours))]
        for row in rows:
            missing = (LENGTH - len(row["input_ids"])) * padded
            row["attention_mask"] = [1] * len(row["input_ids"]) + [0] * missing
            row["input_ids"] = row["input_ids"] + [7] * missing
            row["labels"] = row["labels"] + [-100] * missing
        return rows

    @pytest.mark.parametrize("padded", [False, True])
    def test_at_each_save_without_ids(self, padded, tiny_checkpoint, tokenizer, tmp_path, one_device_mesh):
        datasets = pytest.importorskip("datasets")
        examples = datasets.Dataset.from_list(self.examples(tokenizer, padded))
        callback = TrajectoryCallback(tmp_path / "t.zarr", examples, every=0)
        train(tiny_checkpoint, tokenizer, tmp_path, callback, max_steps=2, save_steps=1)
        loaded = load_trajectories(tmp_path / "t.zarr")
        assert loaded.steps.tolist() == [1, 2]
        assert loaded.ids is None
        assert TrajectoryStore(tmp_path / "t.zarr").ids().tolist() == list(range(len(ROWS)))
        ours = our_losses(tmp_path / "checkpoint-2", one_device_mesh, tokenizer)
        np.testing.assert_allclose(loaded.losses[:, 1], ours, atol=1e-4)

    def test_given_ids(self, tiny_checkpoint, tokenizer, tmp_path):
        ids = [2**64 - 1 - number for number in range(len(ROWS))]
        callback = TrajectoryCallback(tmp_path / "t.zarr", self.examples(tokenizer, False), ids=ids, every=1)
        train(tiny_checkpoint, tokenizer, tmp_path, callback, max_steps=1)
        assert load_trajectories(tmp_path / "t.zarr").ids.tolist() == ids


def test_bfloat16_as_the_trainer_has_it(tiny_checkpoint, tokenizer, tmp_path, one_device_mesh):
    callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS, tokenizer, every=2, **OPTIONS)
    train(tiny_checkpoint, tokenizer, tmp_path, callback, max_steps=2, bf16=True)
    measured = load_trajectories(tmp_path / "t.zarr").losses[:, 0]
    ours = our_losses(tmp_path / "checkpoint-2", one_device_mesh, tokenizer)
    assert 1e-4 < np.abs(measured - ours).max() < 0.1


def test_a_loss_that_is_not_finite(tiny_checkpoint, tokenizer, tmp_path):
    callback = TrajectoryCallback(tmp_path / "t.zarr", ROWS, tokenizer, every=1, **OPTIONS)
    with pytest.raises(
        DivergedError, match="losses at step 1 are not finite; the first is that of example 0"
    ):
        train(tiny_checkpoint, tokenizer, tmp_path, callback, learning_rate=float("inf"))
    assert not len(load_trajectories(tmp_path / "t.zarr").steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples": []}, "at least one"),
        ({"examples": [{"input_ids": [1, 2], "labels": [1, -100]}]}, "no example has a label"),
        ({"examples": iter([{}])}, "a length"),
        ({"every": -1}, "every=-1"),
        ({"ids": [1, 2]}, "2 ids for 1 examples"),
    ],
)
def test_bad_arguments(arguments, message):
    defaults = {"path": "t.zarr", "examples": [{"input_ids": [1, 2], "labels": [1, 2]}]}
    with pytest.raises(InputError, match=message):
        TrajectoryCallback(**defaults | arguments)


def test_a_bad_row_is_named(tokenizer):
    with pytest.raises(InputError, match=r'row 1: .*"output"'):
        TrajectoryCallback("t.zarr", [ROWS[0], {"instruction": "a"}], tokenizer)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_batches(lengths, batch_tokens):
    batches = length_sorted_batches(np.array(lengths), batch_tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    longest = [max(lengths[number] for number in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, length in zip(batches, longest, strict=True):
        assert len(batch) == 1 or len(batch) * length <= batch_tokens


def test_jax_is_not_imported():
    script = (
        "import sys, s2l_jax.trajectories.hf_callback; "
        "print([name for name in ('jax', 'flax', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_no_torch():
    script = "import sys, s2l_jax; s2l_jax.load_trajectories; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


TWO_PROCESSES = """
import sys
import transformers
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.models import hf
from s2l_jax.trajectories.hf_callback import TrajectoryCallback

checkpoint, folder = sys.argv[1:]
tokenizer = hf.load_tokenizer(checkpoint)
model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
callback = TrajectoryCallback(
    f"{folder}/t.zarr", pool_rows(30), tokenizer, prompt="plain", every=1, batch_tokens=400
)
arguments = transformers.TrainingArguments(
    folder, max_steps=2, save_steps=2, learning_rate=1e-2, use_cpu=True, ddp_backend="gloo",
    per_device_train_batch_size=4, disable_tqdm=True, report_to=[],
)
collator = transformers.DataCollatorForSeq2Seq(tokenizer)
trainer = transformers.Trainer(model, arguments, collator, callback.examples, callbacks=[callback])
trainer.train()
assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
assert len(callback._batches) % 2, "the last round leaves a process without a batch"
"""


def test_two_processes(tiny_checkpoint, tokenizer, tmp_path, one_device_mesh):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWO_PROCESSES, str(tiny_checkpoint), str(tmp_path)]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    loaded = load_trajectories(tmp_path / "t.zarr")
    assert loaded.steps.tolist() == [1, 2]
    model = load_model(str(tmp_path / "checkpoint-2"), one_device_mesh)
    ours = example_losses(model, tokenizer, pool_rows(30), prompt="plain")
    np.testing.assert_allclose(loaded.losses[:, 1], ours, atol=1e-4)
