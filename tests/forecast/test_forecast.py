"""What a run will take on devices that are not here, against numbers counted by hand."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from s2l_jax.config import default, run
from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
from s2l_jax.errors import InputError
from s2l_jax.forecast import compiling
from s2l_jax.forecast.compiling import Compiled, compile_one
from s2l_jax.forecast.forecast import forecast
from s2l_jax.forecast.jobs import jobs_of
from s2l_jax.forecast.layouts import Layouts, laid_out
from s2l_jax.forecast.outcome import outcome
from s2l_jax.forecast.stated_pool import SizedPool, Stated, repeated, spread
from s2l_jax.forecast.tables import in_words
from s2l_jax.forecast.topology import describe
from s2l_jax.parallel.mesh import make_mesh
from s2l_jax.pipeline.plan import THERE
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.training.models import trained_config
from s2l_jax.training.out_of_memory import advice
from s2l_jax.training.run import Run, make_batches
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compilation")]

TINY = {
    "model_type": "gpt_neox", "vocab_size": 448, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "rotary_pct": 0.25, "max_position_embeddings": 128,
    "use_parallel_residual": True,
}  # fmt: skip
LARGE = TINY | {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 16384}

# Of TINY, counted by hand: embedding and head with 512 rows, four projections and the MLP of each layer; and
# biases and norms, which every device holds whole.
MATRICES = 2 * 512 * 64 + 2 * (4 * 64 * 64 + 2 * 64 * 128)
VECTORS = 2 * (4 * 64 + 128 + 64 + 4 * 64) + 2 * 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model's config.json and tokeniser, and no weights."""
    path = tmp_path_factory.mktemp("described")
    write_tokenizer(path)
    (path / "config.json").write_text(json.dumps(TINY))
    return path


@pytest.fixture
def config(checkpoint):
    """Two small models that 64 rows are chosen with, eight a step."""
    config = default()
    config.pool.limit = 64
    config.tokenize.prompt, config.tokenize.max_length = "plain", 96
    for model in (config.proxy, config.target):
        model.checkpoint = str(checkpoint)
        model.train.batch_size, model.train.epochs, model.train.dtype = 8, 2.0, "float32"
    config.trajectories.every, config.clustering.num_clusters = 4, 4
    config.mesh.data, config.mesh.fsdp = 1, 8
    config.selection.budget = 16
    config.selection.runs.s2l = run(method="s2l")
    return config


def jobs_on(config, mesh, lengths=10, prompts=4, rows=64):
    """Jobs for a pool whose rows are alike."""
    whole, part = np.full(rows, lengths, np.int32), np.full(rows, prompts, np.int32)
    pool = SizedPool(whole, part, np.zeros(0, np.int32), np.zeros(rows, np.int32))
    plan = plan_pipeline(config, "runs/none")
    jobs = jobs_of(Run(plan.config, epath.Path("runs/none"), mesh), plan, {"proxy": pool, "target": pool})
    return {job.name: job for job in jobs}


class TestCounts:
    def test_state_of_a_device_by_hand(self, config):
        topology, mesh = describe("cpu:8"), make_mesh(1, 8, 1)
        job = jobs_on(config, mesh)["proxy: training step"]
        held = outcome(job, topology, mesh, None).held
        of_parameters = 4 * (MATRICES // 8 + VECTORS)
        assert held["parameters"] == of_parameters
        assert held["optimiser state"] == 2 * of_parameters + 2 * 4  # two moments, two counters

    def test_work_by_hand(self, config):
        job = jobs_on(config, make_mesh(1, 8, 1))["proxy: training step"]
        layers = 2 * 2 * (4 * 64 * 64 + 2 * 64 * 128) * 80  # eight rows of ten tokens
        attention = 4 * 2 * 64 * 8 * 55
        head = 2 * 64 * 448 * 8 * 6
        assert job.flops == 3 * (layers + attention + head)
        assert job.runs == 16  # two epochs of 64 rows
        assert job.executed == 8 * 32 / 80  # on each device one row of 32 tokens
        matrices = MATRICES - 512 * 64  # the embedding is looked up
        state = (MATRICES + VECTORS - 64 * 2 * 64) / 8
        assert job.traffic > 4 * 3 * matrices + 36 * state

    def test_sweeps_clusterings_and_subsets_follow_the_config(self, config):
        config.selection.runs.random = run(method="random", budget=32, seeds=(0, 1))
        config.selection.runs.full = run(method="full")
        jobs = jobs_on(config, make_mesh(1, 8, 1))
        assert jobs["proxy: sweep"].runs == 4  # 16 steps, one sweep every four
        assert jobs["k-means"].runs == 4 + 1
        targets = {name: job.runs for name, job in jobs.items() if name.startswith("target")}
        assert targets == {
            "target: training step, 16 rows": 16,
            "target: training step, 32 rows": 32,
            "target: training step, 64 rows": 16,
        }

    def test_adapters_have_little_state_and_the_base_is_frozen(self, config):
        config.target.lora.rank = 2
        topology, mesh = describe("cpu:8"), make_mesh(8, 1, 1)
        whole, adapted = (
            outcome(jobs_on(config, mesh)[name], topology, mesh, None).held
            for name in ("proxy: training step", "target: training step, 16 rows")
        )
        assert adapted["optimiser state"] < whole["optimiser state"] / 5
        assert adapted["frozen parameters"] == whole["parameters"]

    def test_what_is_computed_again_is_a_pass_forwards(self, config):
        """Of three passes that are counted, of two where weights are frozen."""
        config.target.lora.rank = 2
        done = {}
        for remat in ("none", "full"):
            config.proxy.train.remat = config.target.train.remat = remat
            for name, job in jobs_on(config, make_mesh(8, 1, 1)).items():
                done[name, remat] = job.executed
        for name, share in (("proxy: training step", 3), ("target: training step, 16 rows", 2)):
            assert done[name, "full"] / done[name, "none"] == pytest.approx(1 + 1 / share)


def test_what_is_finished_is_not_planned_again(config):
    config.evaluation.path, config.evaluation.limit, config.evaluation.max_new_tokens = "synthetic", 8, 8
    config.selection.runs.random = run(method="random", budget=32)
    mesh, lengths, none = make_mesh(1, 8, 1), np.full(64, 10, np.int32), np.zeros(64, np.int32)
    pool = SizedPool(lengths, lengths - 6, none[:0], none)
    plan = plan_pipeline(config, "runs/none")

    def jobs(*finished):
        parts = [dataclasses.replace(p, state=THERE if p.name in finished else p.state) for p in plan.parts]
        left = dataclasses.replace(plan, parts=tuple(parts))
        run = Run(plan.config, epath.Path("runs/none"), mesh)
        return {job.name: job.runs for job in jobs_of(run, left, {"proxy": pool, "target": pool})}

    base = (
        "proxy",
        "selection/s2l",
        "target/s2l",
        "evaluation/s2l/synthetic",
        "evaluation/untuned/synthetic",
    )
    assert jobs() | {"evaluation: decoding step": 3 * 8} == jobs()
    assert jobs(*base) == {"target: training step, 32 rows": 16, "evaluation: decoding step": 8}
    with pytest.raises(InputError, match="no model is left to be trained or evaluated"):
        jobs(*(part.name for part in plan.parts))


def test_choices_are_not_planned_as_answers(config, tmp_path):
    row = {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
    (tmp_path / "mmlu.jsonl").write_text(json.dumps(row | {"subject": "sums"}) + "\n")
    config.evaluation.path, config.evaluation.benchmarks = str(tmp_path), ("mmlu",)
    assert "evaluation: decoding step" not in jobs_on(config, make_mesh(1, 8, 1))
    assert "likelihoods of choices" in forecast(config, "cpu:8", workers=1).left_out


def test_what_programs_take_is_what_was_counted(config):
    """The compiled programs of every stage, whose arguments XLA counts too."""
    config.evaluation.path = "synthetic"
    config.evaluation.limit, config.evaluation.max_new_tokens = 8, 8
    mesh = make_mesh(2, 2, 2)
    jobs = jobs_on(config, mesh)
    assert [job.stage for job in jobs.values()] == ["proxy", "proxy", "selection", "target", "evaluation"]
    for name, job in jobs.items():
        counted = sum(outcome(job, describe("cpu:8"), mesh, None).held.values()) - sum(job.beside.values())
        taken = job.program.lower(mesh).compile().memory_analysis().argument_size_in_bytes
        # What a program does not look at, such as names of examples, it does not take.
        assert 0.9 * counted < taken <= counted + 2048, name


def test_a_plan_from_the_config_and_the_pool(config):
    found = forecast(config, "cpu:8", workers=1)
    assert found.fits
    assert found.mesh == (1, 8, 1)
    assert len(found.pools["proxy"].lengths) == 64
    step = found.outcomes[0]
    assert "all-gather" in step.sent  # parameters, over fsdp
    assert step.held["temporaries"] > 0
    text = in_words(found, config, "a config")
    for part in ("proxy: sweep", "k-means", "projection, not measured", "device hours", "It fits."):
        assert part in text


def test_the_mesh_that_is_chosen_fits_and_is_the_cheapest_tried(config):
    config.target.train.epochs = 1.0
    found = forecast(config, "cpu:2", pool=Stated(64, 20, 8), search=True, workers=1)
    times = {each.sizes: each.outcome.total for each in found.tried if each.outcome}
    assert set(times) == {(1, 1, 2), (1, 2, 1), (2, 1, 1)}
    assert found.mesh == min(times, key=times.get)


def test_what_a_program_sends_is_counted_where_its_text_cannot_be_had(config, monkeypatch):
    def unreadable(_):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", unreadable)
    job = jobs_on(config, make_mesh(1, 8, 1))["proxy: training step"]
    made = compile_one("cpu:8", (1, 8, 1), job.program, 1)
    assert made.temporaries > 0
    found = outcome(job, describe("cpu:8"), make_mesh(1, 8, 1), made)
    assert found.is_counted
    assert found.sent["all-gather"][0] == 2  # forwards and backwards


class TestSearch:
    @pytest.fixture
    def compiled(self, monkeypatch):
        """The sizes of meshes that programs were compiled for; what they exchange is nothing."""
        sizes = []

        def compile_one(topology, mesh, program, trips):
            sizes.append(mesh)
            return Compiled(0.0)

        monkeypatch.setattr(compiling, "compile_one", compile_one)
        return sizes

    def test_the_likeliest_by_count_are_compiled_and_no_others(self, config, compiled):
        found = forecast(config, "cpu:8", pool=Stated(64, 20, 8), search=True, workers=1)
        left = [each for each in found.tried if each.why.startswith("by count")]
        tried = [each for each in found.tried if not each.why]
        assert len(tried) == 3
        assert left
        assert not {each.sizes for each in left} & set(compiled)
        mesh = {each.sizes: make_mesh(*each.sizes) for each in tried}
        counted = [outcome(each.outcome.job, found.topology, mesh[each.sizes], None).total for each in tried]
        assert max(counted) <= min(each.outcome.total for each in left)
        assert found.mesh in mesh
        assert "by count, not compiled" in in_words(found, config, "a config")

    def test_others_are_compiled_where_the_likeliest_do_not_fit(self, config, monkeypatch):
        sizes = []

        def compile_one(topology, mesh, program, trips):
            sizes.append(mesh)
            return Compiled(float("inf") if len(sizes) <= 3 else 0.0)

        monkeypatch.setattr(compiling, "compile_one", compile_one)
        found = forecast(config, "cpu:8", pool=Stated(64, 20, 8), search=True, workers=1)
        assert [each.outcome.fits for each in found.tried if not each.why] == [False] * 3 + [True] * 3
        assert found.mesh not in sizes[:3]

    def test_nothing_is_compiled_twice(self, config, compiled):
        forecast(config, "cpu:2", pool=Stated(64, 20, 8), search=True, workers=1)
        # Step and sweep of the proxy, k-means, and the target's step, which the search had compiled.
        chosen = compiled[-1]
        assert compiled.count(chosen) == 4

    def test_sums_over_tensor_are_waited_for(self, config):
        topology = describe("gpu:h100x8")
        times = {}
        for sizes in ((1, 8, 1), (1, 1, 8), (8, 1, 1)):
            mesh = make_mesh(*sizes, devices=topology.devices)
            config.mesh.data, config.mesh.fsdp, config.mesh.tensor = sizes
            found = outcome(jobs_on(config, mesh)["proxy: training step"], topology, mesh, None)
            assert found.seconds["network"] > 0
            times[sizes] = found.waited
        assert times[1, 8, 1] == times[8, 1, 1] == 0
        assert times[1, 1, 8] > 0


def test_layouts_are_shared_by_meshes_of_as_many_row_groups(config):
    layouts = Layouts()
    pool = spread(Stated(64, 20, 8), 96)
    plan = plan_pipeline(config, "runs/none")

    def jobs(known, *sizes):
        run_on = Run(plan.config, epath.Path("runs/none"), make_mesh(*sizes))
        return jobs_of(run_on, plan, {"proxy": pool, "target": pool}, known)

    jobs(layouts, 2, 2, 2)
    kept = dict(layouts._known)
    for sizes in ((4, 1, 2), (1, 4, 2)):
        assert jobs(layouts, *sizes) == jobs(None, *sizes)
    assert layouts._known == kept
    jobs(layouts, 8, 1, 1)
    assert len(layouts._known) == 2 * len(kept)


def test_a_mean_step_is_a_share_of_an_epoch(config):
    pool, mesh = spread(Stated(64, 20, 8), 96), make_mesh(1, 8, 1)
    on, train = Run(config, epath.Path("runs/none"), mesh), config.proxy.train
    model = trained_config(config, "proxy")
    laid = laid_out(on, "proxy", pool, np.arange(64), model, 16, Layouts())
    batches = make_batches(on, pool, np.arange(64), np.ones(64, np.float32), model, train, 16)
    exact = dataclasses.astuple(batches.size(16))
    assert [16 * n for n in dataclasses.astuple(laid.size)] == pytest.approx(exact, abs=8)


def test_a_gpu_gives_programs_the_share_that_jax_takes(config, monkeypatch):
    topology = describe("gpu:h100x8")
    mesh = make_mesh(1, 8, 1, devices=topology.devices)
    job = jobs_on(config, mesh)["proxy: training step"]
    assert outcome(job, topology, mesh, None).available == 0.75 * 80e9
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.9")
    assert outcome(job, topology, mesh, None).available == 0.9 * 80e9


def test_what_needs_more_than_a_device_has_does_not_fit(config):
    topology, mesh = describe("gpu:l4x8"), make_mesh(1, 8, 1, devices=describe("gpu:l4x8").devices)
    job = jobs_on(config, mesh)["target: training step, 16 rows"]
    assert outcome(job, topology, mesh, Compiled(15e9)).fits
    large = outcome(job, topology, mesh, Compiled(30e9))
    assert not large.fits
    changes = advice(config, "target", large.held, large.available)
    assert changes[0].startswith("--config.target.train.remat=full")


def plan_of(config_json, *arguments):
    """Status and output of `launch.py --plan`."""
    done = subprocess.run(
        [sys.executable, "launch.py", "--config=configs/quickstart.py", "--plan_pool=64:20:8",
         f"--config.target.model_config={config_json}", "--config.evaluation.path=", *arguments],
        cwd=REPOSITORY, env=dict(os.environ) | {"XLA_FLAGS": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_status_is_1_where_the_state_alone_is_too_large(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    status, said = plan_of(tmp_path / "config.json", "--plan=gpu:l4x1", f"--workdir={tmp_path / 'run'}")
    assert status == 1, said
    assert "Change: a larger mesh.fsdp" in said
    assert not (tmp_path / "run").exists()
    status, said = plan_of(
        tmp_path / "config.json", "--plan=gpu:h200x8", "--config.mesh.data=1", "--config.mesh.fsdp=8"
    )
    assert status == 0, said
    assert "The state fits." in said


class TestBadInput:
    @pytest.mark.parametrize(
        "name", ["v5e", "v7x:4x4", "v5e:0x", "cpu:0", "gpu:h100", "gpu:b99x8", "0xv5e:2x2"]
    )
    def test_an_unknown_topology_names_those_there_are(self, name):
        with pytest.raises(InputError, match=r"no such topology; there are v5e:AxB.*v5p:AxBxC.*cpu:N.*h100"):
            describe(name)

    def test_an_impossible_mesh_names_the_dimension(self, config):
        config.mesh.fsdp = 3
        with pytest.raises(InputError, match=r"fsdp=3 .*8 devices \(fsdp alone does not\)"):
            forecast(config, "cpu:8", pool=Stated(64, 20))

    def test_without_libtpu_it_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "libtpu", None)
        with pytest.raises(InputError, match="pip install 'libtpu"):
            describe("v5e:4x4")

    def test_a_batch_that_does_not_divide_is_named(self, config):
        config.proxy.train.batch_size = 12
        with pytest.raises(InputError, match=r"proxy.train.batch_size=12 does not divide"):
            forecast(config, "cpu:8", pool=Stated(64, 20))

    def test_a_pool_that_is_not_there_can_be_stated(self, config, tmp_path):
        config.pool.path = str(tmp_path / "absent.jsonl")
        with pytest.raises(InputError, match="--plan_pool=ROWS:TOKENS"):
            forecast(config, "gpu:h100x8")
        found = forecast(config, "gpu:h100x8", pool=Stated(1000, 20, 8))
        assert len(found.pools["target"].lengths) == 1000

    @pytest.mark.parametrize("text", ["", "0", "many", "10:20:20", "10:-1", "10:20:30:40"])
    def test_a_pool_is_stated_in_numbers(self, text):
        with pytest.raises(InputError, match="--plan_pool"):
            Stated.parse(text)

    def test_rows_alone_need_a_pool(self):
        with pytest.raises(InputError, match="tokens must be stated"):
            spread(Stated(100), 512)


def test_stated_means_are_kept_and_rows_are_repeated():
    pool = spread(Stated(20_000, 100, 40), 1024)
    assert np.mean(pool.lengths) == pytest.approx(100, rel=0.02)
    assert np.mean(pool.lengths - pool.prompt_lengths) == pytest.approx(40, rel=0.03)
    few = SizedPool(*(np.arange(n, n + 3) for n in (5, 1)), np.zeros(0, np.int32), np.arange(3))
    assert repeated(few, 7).lengths.tolist() == [5, 6, 7, 5, 6, 7, 5]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu compiles for TPUs; it is large, so only CI installs it: pip install --group topologies",
)
def test_a_step_compiled_for_a_tpu_slice(config):
    topology = describe("v5e:2x2")
    assert topology.platform == "tpu"
    config.mesh.fsdp = 4
    mesh = make_mesh(1, 4, 1, devices=topology.devices)
    job = jobs_on(config, mesh)["proxy: training step"]
    made = compile_one("v5e:2x2", (1, 4, 1), job.program, 1)
    found = outcome(job, topology, mesh, made)
    assert found.fits
    # The two layers' matrices are gathered in a loop of two, forwards and backwards.
    gathered = sum(each.times * each.size for each in made.sent if each.kind == "all-gather")
    assert gathered >= 2 * 4 * (MATRICES - 2 * 512 * 64)
    assert {len(each.group) for each in made.sent} == {4}
