"""The stage that measures the theorem: which rows, what is kept, going on, and what is refused."""

import json
import types

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from ml_collections import ConfigDict

from s2l_jax import load_model
from s2l_jax.config import run, validate
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.features.compute.example_gradients import ExampleGradients
from s2l_jax.integrity import read_npz
from s2l_jax.models.parameters import bind, flatten_params, model_params, nest_params
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.pipeline.stages.theory import GradientSampler, places_of, whole_clusters
from s2l_jax.report.load import results_schema
from s2l_jax.training.checkpoints import Checkpoints
from tests.support.pipeline_kills import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


def theory_config(checkpoint, **changes):
    config = small_config(str(checkpoint))
    config.pool.limit, config.proxy.train.steps, config.target.train.steps = 120, 6, 4
    config.evaluation.path = ""
    config.selection.runs = ConfigDict({"s2l": run(method="s2l", train_target=False)})
    config.analysis.update(theory=True, rows=60, dims=32, checkpoints=3, batch_tokens=512)
    config.update_from_flattened_dict(changes)
    return config


def test_clusters_are_taken_whole_and_fit():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 9 + [-1] * 3 + [3] * 2)
    usable = np.delete(np.arange(len(labels)), [0, 17, 20])  # one of cluster 0, one of none, one of 3
    for seed in range(5):
        rows = whole_clusters(labels, usable, 8, seed)
        assert 4 < len(rows) <= 8
        for label in np.unique(labels[rows]):
            assert set(np.flatnonzero(labels[usable] == label)) <= {
                int(r) for r in np.searchsorted(usable, rows)
            }
    everything = whole_clusters(labels, usable, 0, 0)
    assert everything.tolist() == [row for row in usable if labels[row] >= 0]
    with pytest.raises(InputError, match=r"analysis.rows=2: .* no two of the 4 that there are fit"):
        whole_clusters(labels, usable, 2, 0)


def test_losses_are_found_whatever_their_order():
    tracked = np.array([7, 2, 9, 4])
    assert places_of(np.array([2, 4, 9]), tracked).tolist() == [1, 3, 2]


def test_a_step_is_measured_once_and_must_be_finite(tmp_path):
    calls = []

    def gradients(params):
        calls.append(params)
        return np.full((2, 3), params, np.float32)

    files = {step: tmp_path / f"{step}.npz" for step in (0, 5, 9)}
    sampler = GradientSampler(
        files, lambda params: np.full(2, params, np.float32), gradients, frozenset({0, 9})
    )
    assert [step for step in range(10) if sampler.is_due(step)] == [0, 5, 9]
    for step in (0, 5, 0, 5):  # as after an interruption
        sampler.at_cadence(step, float(step + 1))
    assert calls == [1.0]
    assert set(read_npz(files[0])) == {"losses", "gradients"}
    assert set(read_npz(files[5])) == {"losses"}
    with pytest.raises(DivergedError, match=r"9.npz: losses that are not finite"):
        sampler.at_cadence(9, float("nan"))
    assert not files[9].exists()


def test_what_is_asked_for_is_a_part_of_the_plan(tiny_checkpoint, tmp_path):
    config = theory_config(tiny_checkpoint, seeds=(3, 4))
    (part,) = (each for each in plan_pipeline(config, tmp_path / "none").parts if each.stage == "analysis")
    assert (part.name, part.why) == ("theory", "gradients of clusters of selection/s2l-seed3")
    assert part.settings["seed"] == 3
    config.analysis.theory = False
    assert "theory" not in [each.name for each in plan_pipeline(config, tmp_path / "none").parts]


def test_a_bad_run_is_refused(tiny_checkpoint, tmp_path):
    config = theory_config(tiny_checkpoint)
    config.analysis.run = "s21"
    with pytest.raises(InputError, match=r"analysis.run='s21': no such run in selection.runs; did you mean"):
        validate(config)
    config.analysis.run = ""
    config.selection.runs = ConfigDict({"random": run(method="random")})
    with pytest.raises(InputError, match=r"analysis.theory=True: there is no selection run of method s2l"):
        plan_pipeline(config, tmp_path / "none")


def test_gradients_are_in_all_parameters_that_are_trained(tiny_checkpoint, one_device_mesh):
    model = load_model(str(tiny_checkpoint), one_device_mesh)
    params, tokens = model_params(model), np.arange(5, 14, dtype=np.int32)
    examples = TokenizedList([TokenizedExample(tokens, 4, False, False)])
    (ours,) = ExampleGradients(model.config, one_device_mesh, dims=0, batch_tokens=32).of(
        None, params, examples, np.array([0])
    )
    # A small step against the gradient lowers the loss by its square.
    moved, places, step = {}, 0, 1e-3 / np.linalg.norm(ours)
    for name, leaf in sorted(flatten_params(params).items()):
        moved[name] = leaf - step * ours[places : places + leaf.size].reshape(leaf.shape)
        places += leaf.size
    assert places == len(ours)

    @jax.jit
    def loss(params):
        bound, at = bind(model.config, params), jnp.arange(len(tokens))[None]
        losses = -jax.nn.log_softmax(bound.logits(bound(tokens[None], at, jnp.ones_like(at)))[0, :-1])
        return losses[jnp.arange(len(tokens) - 1), tokens[1:]][3:].mean()

    fall = float(loss(params) - loss(nest_params(moved)))
    assert fall == pytest.approx(step * float(np.square(ours).sum()), rel=0.05)


@pytest.mark.long
def test_an_interrupted_measurement_goes_on_to_the_same_numbers(tiny_checkpoint, tmp_path, monkeypatch):
    config = theory_config(tiny_checkpoint, seeds=(1,))  # another than the config's own
    whole = run_pipeline(config, tmp_path / "whole")
    jsonschema.validate(json.loads((tmp_path / "whole" / "results.json").read_text()), results_schema())
    found = whole["theory"]
    assert [checkpoint["step"] for checkpoint in found["checkpoints"]] == [0, 2, 4]
    assert found["run"] == "s2l-seed1"
    assert 2 <= found["num_rows"] <= 60
    assert {"training_flops", "gradient_flops", "sweep_flops"} <= set(found)
    kept = np.load(tmp_path / "whole" / "theory" / "rows.npz")
    assert len(read_npz(tmp_path / "whole" / "theory" / "step_00000004.npz")["gradients"]) == len(
        kept["rows"]
    )
    assert not (tmp_path / "whole" / "theory" / "target").exists()
    page = (tmp_path / "whole" / "report" / "index.html").read_text()
    assert "Do trajectories tell of gradients?" in page
    assert "Theorem 4.1" in page

    # Asked of a finished workdir, and stopped in the middle.
    del config.analysis
    config.analysis = ConfigDict(theory_config(tiny_checkpoint).analysis.to_dict() | {"theory": False})
    run_pipeline(config, tmp_path / "run")
    config.analysis.theory = True
    save, stopped = Checkpoints.save, types.SimpleNamespace(at=0)

    def interrupted(checkpoints, step, state):
        save(checkpoints, step, state)
        if checkpoints._path.parent.parent.name == "theory":
            checkpoints.wait()
            stopped.at = step
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, tmp_path / "run")
    assert stopped.at == 2
    again = run_pipeline(config, tmp_path / "run")
    assert again["theory"] == found
    assert run_pipeline(config, tmp_path / "run")["theory"] == found
    config.analysis.dims = 16
    with pytest.raises(InputError, match=r"analysis.dims: 32 before, 16 now"):
        run_pipeline(config, tmp_path / "run")
