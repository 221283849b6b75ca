"""Options read from signatures: kinds, bounds, choices, meanings, and what a run inherits."""

import dataclasses
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Lt

from s2l_jax.config.options import Inherits, options_of
from s2l_jax.errors import InputError
from s2l_jax.selection import METHODS


def example(
    inputs,
    count,
    seed,
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.5,
    clusters: Annotated[int, Ge(1), Inherits("clustering.num_clusters")] = 100,
    order: Annotated[Literal["up", "down"], Inherits("selection.stratify_by")] = "up",
    quick: bool = False,
):
    """A function.

    Options:
      share: a share
        of all.
      clusters: K.
      order: which way: "up" or "down".
      quick: whether it is.

    Raises:
      nothing: at all.
    """


OPTIONS = options_of(example)


def test_what_is_read():
    assert list(OPTIONS) == ["share", "clusters", "order", "quick"]
    assert OPTIONS["share"].doc == "a share of all"
    assert OPTIONS["order"].choices == ("up", "down")
    assert OPTIONS["clusters"].inherits == "clustering.num_clusters"


@pytest.mark.parametrize(
    ("name", "good", "bad", "message"),
    [
        ("share", [0.1, 0.9], [0.0, 1.0, -1], "share must be above 0 and below 1"),
        ("share", [], ["0.5", None, True], "share must be a number"),
        ("clusters", [1, 7], [0], "clusters must be at least 1, got 0"),
        ("clusters", [], [1.0, True, "1"], "clusters must be a whole number"),
        ("order", ["up"], ["left"], "order must be one of up, down, got 'left'"),
        ("order", [], [1], "order must be text"),
        ("quick", [True, False], [0, "no"], "quick must be True or False"),
    ],
)
def test_what_an_option_may_be(name, good, bad, message):
    for value in good:
        OPTIONS[name].check(value, "example")
    for value in bad:
        with pytest.raises(InputError, match=f"example: {message}"):
            OPTIONS[name].check(value, "example")


def test_as_fields_of_a_run():
    fields = {name: option.field() for name, option in OPTIONS.items()}
    assert {name: field.default for name, field in fields.items()} == {
        "share": 0.5, "clusters": 0, "order": "inherit", "quick": False,
    }  # fmt: skip
    assert fields["clusters"].check(0)
    assert fields["clusters"].check(3)
    assert not fields["clusters"].check(-1)
    assert fields["clusters"].doc == "K; 0: clustering.num_clusters"
    assert fields["order"].choices == ("inherit", "up", "down")


def test_a_dataclass_has_options_too():
    @dataclasses.dataclass
    class Settings:
        """Some.

        Attributes:
          depth: how deep.
        """

        depth: int = 3

    assert options_of(Settings)["depth"].doc == "how deep"


def test_what_is_no_option():
    def without_meaning(*, a: int = 1):
        """Nothing."""

    def without_type(*, a=1):
        """Options:
        a: something.
        """

    def of_a_list(*, a: list = ()):
        """Options:
        a: something.
        """

    for function in (without_meaning, without_type, of_a_list):
        with pytest.raises(InputError, match=r"option 'a'"):
            options_of(function)


def test_options_of_one_name_are_of_one_kind():
    """On the command line an option is typed by the run; help and did-you-mean take any method's."""
    kinds = {}
    for method in METHODS.values():
        for name, option in (method.own_options | method.feature_options).items():
            assert kinds.setdefault(name, option.kind) is option.kind, name
            assert option.doc
