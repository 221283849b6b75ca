"""Checkpoints that were trained elsewhere, swept without training."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest

from s2l_jax.config import run
from s2l_jax.data.datasets.synthetic import pool_rows
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.checkpoint_series import find_checkpoints
from s2l_jax.parallel.placement import load_model
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.pipeline.stages import saved_parameters
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.sweep import example_losses
from tests.support.pipeline_kills import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

LENGTH = 96  # tokens
ROWS = pool_rows(60)
STEPS = [2, 4, 8, 10]


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tmp_path_factory):
    """The output folder of a Hugging Face Trainer, with checkpoints at STEPS."""
    pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    import transformers

    from s2l_jax.trajectories.hf_callback import TrajectoryCallback

    folder, tokenizer = tmp_path_factory.mktemp("trainer") / "out", hf.load_tokenizer(tiny_checkpoint)
    trainer = transformers.Trainer(
        transformers.AutoModelForCausalLM.from_pretrained(tiny_checkpoint),
        transformers.TrainingArguments(
            str(folder), max_steps=10, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
            disable_tqdm=True, report_to=[], use_cpu=True,
        ),
        train_dataset=TrajectoryCallback(
            "unused", ROWS, tokenizer, prompt="plain", max_length=LENGTH
        ).examples,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    shutil.rmtree(folder / "checkpoint-6")  # the order of names is not that of steps
    return folder


@pytest.fixture(scope="module")
def make_config(trained, tmp_path_factory):
    """A config that sweeps checkpoints, with no proxy named: their own tokeniser is used."""
    pool = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(*checkpoints, **trajectories):
        config = small_config("")
        config.pool.update(path=str(pool), limit=0)
        config.mesh.data, config.mesh.fsdp = 4, 2
        config.evaluation.path, config.selection.budget = "", 20
        config.selection.runs = {}
        config.selection.runs.s2l = run(method="s2l", train_target=False)
        names = checkpoints or (f"{trained}/checkpoint-*",)
        config.trajectories.update(trajectories, checkpoints=tuple(map(str, names)))
        return config

    return make


@pytest.fixture(scope="module")
def swept(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("swept")
    run_pipeline(make_config(), workdir, stages=["pool", "trajectories"])
    return workdir, run_pipeline(make_config(), workdir)


def test_each_column_is_the_losses_of_its_checkpoint(swept, trained, one_device_mesh):
    loaded = load_trajectories(swept[0] / "trajectories.zarr")
    assert loaded.steps.tolist() == STEPS
    for column, step in enumerate(STEPS):
        folder = trained / f"checkpoint-{step}"
        model, tokenizer = load_model(str(folder), one_device_mesh), hf.load_tokenizer(folder)
        expected = example_losses(model, tokenizer, ROWS, prompt="plain", max_length=LENGTH)
        np.testing.assert_allclose(loaded.losses[:, column], expected, rtol=1e-4, atol=1e-5)
    falls = loaded.losses[:, 0] - loaded.losses[:, -1]
    assert falls.mean() > 0.1  # they are of different parameters


def test_selection_goes_on_from_them(swept):
    workdir, results = swept
    assert results["trajectories"]["steps"] == STEPS
    assert results["trajectories"]["source"] == "sweep"
    assert results["trajectories"]["sweep_flops"] > 0
    assert "proxy" not in results
    assert len(np.load(workdir / "selection" / "s2l" / "indices.npy")) == 20


def test_a_sweep_that_was_killed_goes_on_at_the_next_checkpoint(swept, make_config, tmp_path, monkeypatch):
    loaded, load = [], saved_parameters.load_model

    def stopping(folder, mesh):
        loaded.append(folder.rpartition("-")[2])
        if len(loaded) == 3:
            raise KeyboardInterrupt
        return load(folder, mesh)

    monkeypatch.setattr(saved_parameters, "load_model", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(make_config(), tmp_path, stages=["pool", "trajectories"])
    so_far = json.loads((tmp_path / "trajectories" / "stage.json").read_text())["seconds"]
    results = run_pipeline(make_config(), tmp_path, stages=["trajectories"])
    assert results["timing"]["trajectories"] > so_far > 0  # of both sittings
    assert loaded == ["2", "4", "8", "8", "10"]
    ours, whole = (load_trajectories(path / "trajectories.zarr") for path in (tmp_path, swept[0]))
    assert ours.losses.tobytes() == whole.losses.tobytes()
    run_pipeline(make_config(), tmp_path, stages=["trajectories"])
    assert len(loaded) == 5


def test_other_checkpoints_in_the_same_workdir_are_refused(swept, make_config, trained):
    config = make_config(trained / "checkpoint-2", trained / "checkpoint-4")
    with pytest.raises(InputError, match=r"trajectories\.checkpoints\.10\.config\.json"):
        run_pipeline(config, swept[0])
    # Where they lie and how they are named is no part of it.
    run_pipeline(make_config(*(trained / f"checkpoint-{step}" for step in reversed(STEPS))), swept[0])


def test_a_dry_run_says_which_steps_will_be_swept(make_config, trained, tmp_path):
    workdir = tmp_path / "run"
    said = str(plan_pipeline(make_config(), workdir))
    assert f"sweeps of {trained}/checkpoint-* at steps 2, 4 and 2 more, for s2l" in said
    assert "proxy" not in said
    few = make_config(cadence="list", steps=(8, 4))
    assert "at steps 4, 8, for s2l" in str(plan_pipeline(few, workdir))
    assert not workdir.exists()


def test_revisions_of_the_hub(make_config, trained, monkeypatch, tmp_path):
    """Each is downloaded as it is named, and their steps are those of the revisions."""
    asked = []

    def download(name, revision, **_):
        asked.append((name, revision))
        return str(trained / f"checkpoint-{revision.removeprefix('step')}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config = make_config("owner/name@step10", "owner/name@step2")
    plan_pipeline(config, tmp_path)
    assert not asked
    results = run_pipeline(config, tmp_path, stages=["pool", "trajectories"])
    assert results["trajectories"]["steps"] == [2, 10]
    assert set(asked) == {("owner/name", "step2"), ("owner/name", "step10")}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("global_step12", 12),
        ("7", 7),
        ("owner/name-7b@step1000", 1000),
        ("owner/name@stage1-step1000-tokens4B", 1000),
    ],
)
def test_steps_are_read_from_names(name, step, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "@" not in name:
        shutil.copytree(trained / "checkpoint-2", name)
    assert list(find_checkpoints([name])) == [step]


class TestRefusals:
    """All before anything is computed, and by --dry_run as far as names tell."""

    @pytest.fixture
    def copy(self, trained, tmp_path):
        """A copy of the checkpoint of step 2."""

        def make(name):
            return shutil.copytree(trained / "checkpoint-2", tmp_path / "copies" / name)

        return make

    def refused(self, config, workdir, match, names_tell=True):
        tell = plan_pipeline if names_tell else run_pipeline
        with pytest.raises(InputError, match=match):
            tell(config, workdir)
        assert not (workdir / "pool").exists()

    @pytest.mark.parametrize("name", ["model-v2", "pythia-70m", "checkpoint-best", "step4-step5"])
    def test_a_step_that_cannot_be_read(self, name, copy, make_config, tmp_path):
        match = rf"its step cannot be read from the name '{name}'; name it checkpoint-<step>"
        self.refused(make_config(copy(name)), tmp_path / "run", match)

    def test_two_of_one_step(self, copy, make_config, trained, tmp_path):
        config = make_config(f"{trained}/checkpoint-*", copy("step_4"))
        self.refused(config, tmp_path / "run", r"checkpoint-4 and .*step_4 are both of step 4; leave one out")

    def test_no_weights(self, copy, make_config, tmp_path):
        folder = copy("checkpoint-3")
        (folder / "model.safetensors").unlink()
        self.refused(make_config(folder), tmp_path / "run", r"checkpoint-3: no model\.safetensors")
        (folder / "adapter_config.json").write_text("{}")
        (folder / "config.json").unlink()
        self.refused(make_config(folder), tmp_path / "run", r"checkpoint-3: an adapter alone")

    def test_weights_that_do_not_fit(self, copy, make_config, tmp_path):
        folder = copy("checkpoint-3")
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described | {"intermediate_size": 64}))
        self.refused(make_config(folder), tmp_path / "run", r"\[128, 64\]", names_tell=False)

    def test_folders_that_are_none(self, make_config, trained, tmp_path):
        workdir = tmp_path / "run"
        self.refused(make_config(trained), workdir, r"no config\.json; did you mean .*/out/checkpoint-\*\?")
        self.refused(make_config(f"{trained}/step-*"), workdir, r"step-\* matches no folder")
        self.refused(make_config("nowhere"), workdir, "nowhere is no folder, and no hub id with a revision")
        self.refused(make_config("owner/name"), workdir, r"such as owner/name@step1000")

    def test_a_model_of_another_kind(self, copy, make_config, trained, tmp_path):
        folder = copy("checkpoint-3")
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described | {"num_hidden_layers": 1}))
        config = make_config(trained / "checkpoint-2", folder)
        match = r"checkpoint-3: its num_layers is 1, that of .*checkpoint-2 is 2: .* one model's training"
        self.refused(config, tmp_path / "run", match, names_tell=False)

    def test_another_vocabulary(self, make_config, tmp_path):
        config = make_config()
        config.proxy.tokenizer = "tests/golden/tokenizer"
        match = r"its vocabulary is 448, the tokeniser of tests/golden/tokenizer has 51\d tokens"
        self.refused(config, tmp_path / "run", match, names_tell=False)

    def test_another_tokeniser_of_the_same_size(self, copy, make_config, trained, tmp_path):
        folder = copy("checkpoint-3")
        described = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(described | {"eos_token": "a"}))
        config = make_config(trained / "checkpoint-2", folder)
        match = (
            r"saved with another tokeniser than that of .*checkpoint-2.* Set proxy\.tokenizer=.*checkpoint-3"
        )
        self.refused(config, tmp_path / "run", match, names_tell=False)

    def test_no_pool(self, make_config, tmp_path):
        config = make_config()
        config.pool.path = ""
        self.refused(config, tmp_path / "run", "pool.path is empty: set it to the rows whose losses")

    def test_more_than_one_start(self, make_config, trained, tmp_path):
        config = make_config(snapshots=str(trained))
        match = r"trajectories\.snapshots and trajectories\.checkpoints: set the one to start from"
        self.refused(config, tmp_path / "run", match)
