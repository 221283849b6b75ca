"""Several proxies in one workdir: which selection goes by which, how they agree, what each is charged."""

import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from s2l_jax.config import load, resolved_run, run, validate
from s2l_jax.config.inputs import Inputs
from s2l_jax.data.order import priorities
from s2l_jax.errors import InputError
from s2l_jax.features.feature import FEATURES
from s2l_jax.features.inputs import inputs_of
from s2l_jax.integrity import write_json
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.proxy_comparison import ComparedRun, Losses, compare_proxies, rank_correlations
from s2l_jax.pipeline.run import plan_pipeline
from s2l_jax.pipeline.stages.given_costs import cost_of_losses, cost_of_snapshots
from s2l_jax.report.findings import Findings
from s2l_jax.report.page import write_report
from s2l_jax.report.runs import group_runs, selection_flops, selection_seconds
from s2l_jax.report.section import all_sections
from s2l_jax.selection import Selection
from s2l_jax.selection.balanced import balanced_order
from s2l_jax.trajectories.load import load_trajectories
from s2l_jax.trajectories.store import TrajectoryStore
from tests.support.pipeline_kills import small_config


def quickstart(**proxies):
    config = load("quickstart")
    config.report.baseline = ""
    config.selection.runs = ConfigDict({"s2l": run(method="s2l"), "random": run(method="random")})
    for name, fields in proxies.items():
        config.proxies[name] = ConfigDict(fields)
        config.selection.runs[f"s2l_{name}"] = run(method="s2l", proxy=name)
    return config


def inputs_parts(config, tmp_path):
    parts = plan_pipeline(config, tmp_path / "none").parts
    return {part.name: part.settings for part in parts if part.stage in ("proxy", "trajectories")}


def test_each_proxy_is_a_part_with_the_settings_it_differs_in(tmp_path):
    config = quickstart(large={"proxy": {"checkpoint": "elsewhere", "train": {"steps": 100}}})
    parts = inputs_parts(config, tmp_path)
    assert list(parts) == ["proxy", "proxy_large/proxy"]
    own, other = parts.values()
    differing = {name for name in own if own[name] != other[name]}
    assert differing == {"proxy.checkpoint", "proxy.train.steps"}
    config.seeds, config.proxy.per_seed = (0, 1), True
    parts = inputs_parts(config, tmp_path)
    assert list(parts) == ["proxy", "seed_1/proxy", "proxy_large/proxy", "proxy_large/seed_1/proxy"]
    del config.selection.runs["s2l"]
    assert list(inputs_parts(config, tmp_path)) == ["proxy_large/proxy", "proxy_large/seed_1/proxy"]


def test_features_go_by_a_proxy_where_it_changes_them():
    config = quickstart(large={"proxy": {"checkpoint": "elsewhere"}})
    config.selection.runs.rds = run(method="rds", proxy="large")

    def found():
        entry = resolved_run(config, "rds")
        return {
            name: inputs_of(FEATURES.find(name), config, entry).proxy
            for name in ("hidden_states", "query_states", "gradients", "query_gradients", "trajectories")
        }

    shared = {"hidden_states": "", "query_states": "", "gradients": "", "query_gradients": ""}
    assert found() == shared | {"trajectories": "large"}
    config.selection.states.model = "proxy"
    assert found() == dict.fromkeys(shared, "") | dict.fromkeys(
        ("hidden_states", "query_states", "trajectories"), "large"
    )


def test_a_proxy_may_be_given_by_its_losses(tmp_path):
    np.save(tmp_path / "losses.npy", np.ones((4000, 2), np.float32))
    config = quickstart(given={"trajectories": {"path": str(tmp_path / "losses.npy")}})
    assert list(inputs_parts(config, tmp_path)) == ["proxy", "proxy_given/imported"]
    config.proxies.given.trajectories.path = "nowhere.npy"
    with pytest.raises(InputError, match=r"trajectories.path='nowhere.npy' does not exist"):
        plan_pipeline(config, tmp_path / "none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"proxy": {"chekpoint": "x"}},
            r"proxies.a.proxy.chekpoint: no such field; did you mean 'checkpoint'",
        ),
        ({"proxy": {"train": {"steps": "ten"}}}, r"proxies.a.proxy.train.steps='ten': needs a whole number"),
        ({"target": {}}, r"proxies.a={'target': {}}: needs groups of fields proxy and trajectories"),
        ({"proxy": {"per_seed": True}}, r"proxies.a.proxy.per_seed=True: set proxy.per_seed"),
        ({"proxy": {"train": {"steps": 5}}}, r"proxies.a: trajectories.every=25 is longer than"),
    ],
)
def test_a_bad_proxy_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        validate(quickstart(a=fields))


def test_a_run_by_a_proxy_that_is_not_there_is_refused():
    config = quickstart(large={"proxy": {}})
    config.selection.runs.s2l.proxy = "larg"
    with pytest.raises(InputError, match=r"runs.s2l.proxy='larg': no such proxy in `proxies`; did you mean"):
        validate(config)


def test_a_method_that_goes_by_no_proxy_cannot_have_one(tmp_path):
    config = quickstart(large={"proxy": {}})
    config.selection.runs.random.proxy = "large"
    with pytest.raises(InputError, match=r"runs.random.proxy='large': method 'random' goes by no proxy"):
        run_pipeline(config, tmp_path, stages=["selection"])


def test_the_ablation_of_proxies_covers_the_paper():
    config = load("ablation_proxies")
    assert {entry.get("proxy", "") for entry in config.selection.runs.values()} == {
        "",
        "target",
        "from_scratch",
    }
    validate(config)


def test_rank_correlations_of_losses():
    rng = np.random.default_rng(0)
    sources = np.repeat(["a", "b"], 100)
    one = rng.uniform(1, 2, (200, 1)) + rng.uniform(0, 0.1, (200, 3))
    # Other columns, and a monotone change of each loss that differs by source: ranks within sources stay.
    other = np.exp(one[:, [0, 2]]) + 100.0 * (sources == "b")[:, None]
    rows = np.arange(200)
    found = rank_correlations(Losses(one, rows), Losses(np.exp(one), rows), sources)
    assert found["num_rows"] == 200
    assert found["mean_loss"] > 0.99
    same = rank_correlations(Losses(one, rows), Losses(7 * one - 3, rows), sources)
    assert [same[name] for name in ("mean_loss", "fall", "distances")] == pytest.approx([1, 1, 1])
    back = rank_correlations(Losses(one, rows), Losses(-one, rows), sources)
    assert [back[name] for name in ("mean_loss", "fall", "distances")] == pytest.approx([-1, -1, 1])
    shifted = rank_correlations(Losses(one[:, [0, 2]], rows), Losses(other, rows), sources)
    assert shifted["mean_loss"] > 0.99
    # Rows are matched, whatever their order and whichever of them were measured.
    some = rng.permutation(200)[:150]
    assert rank_correlations(Losses(one, rows), Losses(one[some], some), sources)["fall"] == pytest.approx(1)


def compared(name, proxy, labels, seed=0):
    """A subset that was drawn evenly from clusters, without the work of finding them."""
    ids, none = np.arange(len(labels), dtype=np.uint64), np.zeros((0, 0), np.float32)
    chosen = np.sort(balanced_order(labels, priorities(ids, seed), "balanced")[:60])
    sources, weights = np.repeat(["a", "b"], len(labels) // 2), np.ones(60, np.float32)
    options = {"proxy": proxy} if proxy else {}
    made = Selection(chosen, labels, none, ["a", "b"], weights, ids, sources, "s2l", 60, seed, options)
    return ComparedRun(name, Inputs(proxy, 0), made)


def test_proxies_alike_agree_and_unlike_ones_do_not():
    rng = np.random.default_rng(1)
    losses = rng.choice(4, (400, 1), p=(0.1, 0.2, 0.3, 0.4)) + rng.normal(0, 0.01, (400, 3))
    others = {"": losses, "twin": 2 * losses, "odd": rng.permutation(losses)}
    labels = {"": 1, "twin": 2, "odd": 1}
    labels = {name: np.rint(others[name][:, 0] / width).astype(int) for name, width in labels.items()}
    runs = [compared(f"s2l{name}", name, own) for name, own in labels.items()]
    runs.append(compared("s2l-seed1", "", labels[""], seed=1))
    measured = {Inputs(name, 0): Losses(each, np.arange(400)) for name, each in others.items()}
    made = {"proxy": {"parameters": 7, "training_flops": 2.0, "sweep_flops": 1.0}}
    results = made | {
        "proxies": {"proxy_twin": made, "proxy_odd": {"trajectories": {"training_flops": None}}}
    }
    parts = {
        Inputs("", 0): "proxy",
        Inputs("twin", 0): "proxy_twin/proxy",
        Inputs("odd", 0): "proxy_odd/imported",
    }
    found = compare_proxies(runs, measured, results, parts)["proxy_comparison"]
    assert [proxy["name"] for proxy in found["proxies"]] == ["proxy", "twin", "odd"]
    assert [proxy["training_flops"] for proxy in found["proxies"]] == [2.0, 2.0, None]
    pairs = {tuple(pair["proxies"]): pair for pair in found["pairs"]}
    assert set(pairs) == {("proxy", "proxy"), ("proxy", "twin"), ("proxy", "odd"), ("twin", "odd")}
    twin, odd, seeds = pairs["proxy", "twin"], pairs["proxy", "odd"], pairs["proxy", "proxy"]
    assert (twin["jaccard"], twin["adjusted_rand"]) == (1, pytest.approx(1))
    assert twin["trajectories"]["distances"] == pytest.approx(1)
    assert odd["adjusted_rand"] < 0.1
    assert abs(odd["trajectories"]["mean_loss"]) < 0.3
    assert odd["jaccard"] < twin["jaccard"]
    assert seeds["runs"] == [["s2l", "s2l-seed1"]]
    assert seeds["adjusted_rand"] == pytest.approx(1)
    assert seeds["trajectories"] == {}
    # The same draws from other clusters, against independent ones: 60 of 400 rows.
    assert seeds["jaccard_by_chance"] < 0.15 < odd["jaccard_by_chance"]
    assert compare_proxies(runs[:1], measured, results, parts) == {}


def test_the_page_has_a_line_for_each_proxy_and_pair():
    chosen = {"method": "s2l", "budget": 60, "size": 60, "seed": 0, "options": {}}
    unknown = dict.fromkeys(("parameters", "training_flops", "sweep_flops"))
    known = {"parameters": 7, "training_flops": 2e9, "sweep_flops": 1e9}
    pair = {"proxies": ["proxy", "odd"], "runs": [["s2l", "s2l_odd"]], "jaccard": 0.5, "adjusted_rand": None}
    losses = {"num_rows": 9, "mean_loss": 0.9, "fall": 0.1, "distances": 0}
    comparison = {
        "proxies": [
            {"name": "proxy", **known, "runs": ["s2l"]},
            {"name": "odd", **unknown, "runs": ["s2l_odd"]},
        ],
        "pairs": [pair | {"jaccard_by_chance": 0.3, "trajectories": losses}],
    }
    results = {
        "selections": {"s2l": chosen, "s2l_odd": chosen | {"options": {"proxy": "odd"}}},
        "evaluations": {"s2l": {"overall": {"accuracy": 0.25, "heldout_loss": 1.5}}},
        "proxy_comparison": comparison,
    }
    assert {group.label for group in group_runs(results)} == {"s2l", "s2l_odd"}
    sections = {section.key: section.rows for section in all_sections(Findings(results))}
    assert sections["proxies"] == [
        ["proxy", "s2l · 60", "7", "3e+09", "25.0", "1.500"],
        ["odd", "s2l_odd · 60", "-", "not known", "-", "-"],
    ]
    assert sections["proxy-agreement"] == [
        ["proxy and odd", "+0.90", "+0.10", "+0.00", "-", "0.50", "0.30"]
    ]  # fmt: skip


def recorded(folder, results, digests=()):
    folder.mkdir(parents=True)
    stored = {"settings": {}, "results": results, "seconds": 9.0, "digests": dict(digests)}
    write_json(folder / "stage.json", stored)


def test_what_was_made_in_another_workdir_is_charged(tmp_path):
    cost = {"training_flops": 5.0, "sweep_flops": 2.0}
    recorded(tmp_path / "proxy", cost | {"steps": 3}, {"trajectories.zarr": "the losses"})
    store = tmp_path / "trajectories.zarr"
    assert cost_of_losses(store, "the losses") == cost | {"seconds_elsewhere": 9.0}
    assert cost_of_losses(store, "others") == {"training_flops": None}
    assert cost_of_snapshots(tmp_path / "proxy" / "snapshots") == {
        "training_flops": 5.0,
        "seconds_elsewhere": 9.0,
    }
    assert cost_of_snapshots(tmp_path / "nowhere" / "snapshots") == {"training_flops": None}
    # Snapshots that were swept in a third workdir bring their training along.
    swept = cost_of_snapshots(tmp_path / "proxy" / "snapshots") | {"sweep_flops": 1.0}
    recorded(tmp_path / "third" / "trajectories", swept, {"trajectories.zarr": "again"})
    found = cost_of_losses(tmp_path / "third" / "trajectories.zarr", "again")
    assert found == {"training_flops": 5.0, "sweep_flops": 1.0, "seconds_elsewhere": 18.0}


def test_the_cost_of_a_selection():
    results = {
        "proxy": {"training_flops": 5.0, "sweep_flops": 2.0},
        "proxies": {
            "proxy_a/seed_1": {"proxy": {"training_flops": 50.0, "sweep_flops": 20.0}},
            "proxy_b": {"trajectories": {"training_flops": None, "sweep_flops": 3.0}},
        },
        "selection_inputs": {"hidden_states/target-mean": {"flops": 0.5}},
        "selections": {
            name: {"used": used}
            for name, used in {
                "own": ["proxy", "hidden_states/target-mean"],
                "a": ["proxy_a/seed_1/proxy"],
                "b": ["proxy_b/imported"],
                "random": [],
            }.items()
        },
    }
    costs = {name: selection_flops(results, name) for name in results["selections"]}
    assert costs == {"own": (7.5, []), "a": (70, []), "b": (3, ["proxy_b/imported"]), "random": (0, [])}


def with_other(checkpoint, **fields):
    config = small_config(str(checkpoint))
    config.pool.limit, config.proxy.train.steps, config.evaluation.path = 120, 6, ""
    config.trajectories.slice_count = 100
    config.selection.runs = ConfigDict({"s2l": run(method="s2l", train_target=False)})
    if fields:
        config.proxies.other = ConfigDict(fields)
        config.selection.runs.s2l_other = run(method="s2l", proxy="other", train_target=False)
    return config


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation")
def test_a_proxy_is_what_it_is_in_a_workdir_of_its_own(tiny_checkpoint, tmp_path, monkeypatch):
    own = {"proxy": {"train": {"learning_rate": 0.01}}}
    config = with_other(tiny_checkpoint, **own)
    append = TrajectoryStore.append

    def interrupted(store, step, column):
        if "proxy_other" in str(store._path) and step > 3:
            raise KeyboardInterrupt
        append(store, step, column)

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryStore, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(config, tmp_path / "run")
    shown = []
    with monkeypatch.context() as patch:
        write = lambda folder, found: (shown.append(found), write_report(folder, found))  # noqa: E731
        patch.setattr("s2l_jax.report.page.write_report", write)
        results = run_pipeline(config, tmp_path / "run")
    # Every subset can be compared with others; clusters are shown of the shown losses alone.
    assert shown[0].taken.keys() == {"s2l", "s2l_other"}
    assert shown[0].labels.keys() == {"s2l"}
    alone = with_other(tiny_checkpoint)
    alone.proxy.train.learning_rate = 0.01
    theirs = run_pipeline(alone, tmp_path / "alone")
    digests = [
        load_trajectories(tmp_path / store).digest
        for store in ("run/proxy_other/trajectories.zarr", "alone/trajectories.zarr", "run/trajectories.zarr")
    ]
    assert digests[0] == digests[1] != digests[2]
    subsets = [
        found["indices_sha256"] for found in (results["selections"]["s2l_other"], theirs["selections"]["s2l"])
    ]
    assert subsets[0] == subsets[1]
    assert results["proxies"]["proxy_other"]["proxy"] == theirs["proxy"]
    (pair,) = results["proxy_comparison"]["pairs"]
    assert 0.5 < pair["trajectories"]["mean_loss"] < 1
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "Proxies compared" in page

    # The same from that workdir's losses: they are charged what they took there.
    given = with_other(tiny_checkpoint, trajectories={"path": str(tmp_path / "alone" / "trajectories.zarr")})
    given.proxies.other.trajectories.slice_count = 0
    found = run_pipeline(given, tmp_path / "given")
    assert found["selections"]["s2l_other"]["indices_sha256"] == subsets[0]
    assert selection_flops(found, "s2l_other") == selection_flops(results, "s2l_other")
    elsewhere = theirs["timing"]["proxy"]
    assert found["timing"]["proxy_other/imported"] >= elsewhere
    assert selection_seconds(found, "s2l_other") >= elsewhere
    pairs = [dict(each["proxy_comparison"]["pairs"][0]) for each in (found, results)]
    assert pairs[0] == pairs[1]
    del given.proxies["other"], given.selection.runs["s2l_other"]
    without = run_pipeline(given, tmp_path / "given")
    assert "proxy_comparison" not in without
    assert selection_flops(without, "s2l_other") == selection_flops(found, "s2l_other")
    changed = plan_pipeline(with_other(tiny_checkpoint, proxy={}), tmp_path / "run")
    (refused,) = (part for part in changed.parts if part.state == "refused" and part.name.endswith("/proxy"))
    assert re.match(r"proxy.train.learning_rate: 0.01 before, 0.001 now", refused.differences[0])
