"""What is told of a choice before it is made: more clusters than rows, sources that are no categories."""

import numpy as np
import pytest

from s2l_jax.errors import InputError
from s2l_jax.selection import METHODS, SelectionInputs, select
from s2l_jax.selection.known import Known, drawn_numbers


def urls(size):
    return [f"https://example.org/{number:03}" for number in range(size)]


def check(name, known, **options):
    method = METHODS[name]
    method.check(known, **method.options | options)


class TestSources:
    @pytest.mark.parametrize("name", ["s2l", "random"])
    @pytest.mark.parametrize(
        ("sources", "count", "reason"),
        [
            (
                urls(400),
                40,
                "there are 400 .'https://example.org/000', .*more than the budget of 40 examples",
            ),
            (urls(300) + ["all"] * 100, 350, "for 400 rows, and 300 are of a single row"),
            # On average four rows each.
            (urls(99) + ["all"] * 301, 120, "there are 100 .*for 400 rows, and 99 are of a single row"),
            (urls(40) * 10, 30, "more than the budget of 30"),
        ],
    )
    def test_that_are_no_categories(self, name, sources, count, reason):
        known = Known(400, count, sources)
        with pytest.raises(InputError, match=rf"{reason}.* Set stratify_by='none'"):
            check(name, known, stratify_by="source")
        check(name, known, stratify_by="none")

    @pytest.mark.parametrize("sources", [["a"] * 9, ["a", "b", "c"] * 3, [0, 1, 2] * 3, None])
    def test_that_are(self, sources):
        check("random", Known(9, 3, sources), stratify_by="source")

    def test_a_few_of_a_single_row(self):
        check("random", Known(400, 40, ["a"] * 200 + ["b"] * 199 + ["c"]), stratify_by="source")

    @pytest.mark.parametrize("sources", [["a"], urls(30)])
    def test_a_budget_of_all_rows(self, sources):
        check("random", Known(len(sources), len(sources), sources), stratify_by="source")

    def test_a_library_call_is_warned(self, caplog):
        inputs = SelectionInputs(sources=urls(30))
        assert len(select(inputs, 10, method="random", stratify_by="source").indices) == 10
        assert "more than the budget of 10 examples" in caplog.text

    @pytest.mark.parametrize("name", ["s2l", "random"])
    def test_ties_go_by_the_seed(self, name):
        """Not by name: the alphabetically last sources were taken, whatever the seed."""
        losses = np.random.default_rng(0).random((60, 3), np.float32)
        inputs = SelectionInputs(trajectories=losses, sources=np.repeat(urls(20), 3))
        chosen = [
            set(select(inputs, 7, method=name, seed=seed, stratify_by="source").indices // 3)
            for seed in range(40)
        ]
        counts = np.bincount(np.concatenate([list(sources) for sources in chosen]), minlength=20)
        assert all(len(sources) == 7 for sources in chosen)
        assert counts.min() >= 4  # 14 is to be expected
        assert counts.max() <= 26

    def test_smaller_budgets_nest_in_larger_ones(self):
        inputs = SelectionInputs(sources=np.repeat(urls(20), 3))
        whole = select(inputs, 50, method="random", stratify_by="source")
        for budget in (5, 21, 33):
            alone = select(inputs, budget, method="random", stratify_by="source")
            assert whole.first(budget).indices.tolist() == alone.indices.tolist()

    def test_numbers_are_an_order_of_their_own(self):
        names = np.array(urls(50))
        numbers = drawn_numbers(names, 3)
        assert sorted(numbers) == list(range(50))
        assert (drawn_numbers(names[::-1], 3) == numbers[::-1]).all()
        assert (drawn_numbers(names, 4) != numbers).any()


@pytest.mark.parametrize("name", ["s2l", "semdedup"])
def test_more_clusters_than_rows(name):
    with pytest.raises(InputError, match=f"{name}: num_clusters=31 is above the 30 rows"):
        check(name, Known(30, 9), num_clusters=31)
    check(name, Known(30, 9), num_clusters=30)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_checkpoints": 5}, "num_checkpoints=5, but trajectories have 4 columns"),
        ({"every": 5}, "every=5 leaves none of the 4 trajectory columns"),
        ({"num_checkpoints": 2, "every": 3}, "every=3 leaves none of the 2"),
        ({"pick": "stable", "num_checkpoints": 1}, "needs losses at two checkpoints or more, got 1"),
        ({"pick": "stable", "every": 3}, "needs losses at two checkpoints or more, got 1"),
    ],
)
def test_columns_that_there_are_not(options, reason):
    with pytest.raises(InputError, match=reason):
        check("s2l", Known(300, 9, steps=(1, 2, 3, 4)), **options)
    check("s2l", Known(300, 9), **options)  # while their number is not known
