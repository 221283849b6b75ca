"""The steps at which losses are swept, from the cadence and the length of the run."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.config import SCHEMA, default
from s2l_jax.errors import InputError
from s2l_jax.trajectories.cadence import _SPREAD, Cadence, sweep_steps

RUNS = st.integers(1, 20_000)


@st.composite
def spread(draw):
    num_steps = draw(RUNS)
    return num_steps, draw(st.integers(1, min(num_steps, 300))), draw(st.booleans())


def steps_of(kind, num_steps, **fields):
    found = sweep_steps(Cadence(kind, **fields), num_steps)
    assert found == sorted(set(found))
    assert all(type(step) is int and 0 <= step <= num_steps for step in found)
    return found


@settings(max_examples=60, deadline=None)
@given(num_steps=RUNS, data=st.data(), zero=st.booleans())
def test_every_so_many_steps(num_steps, data, zero):
    every = data.draw(st.integers(1, num_steps))
    found = steps_of("every", num_steps, every=every, step_zero=zero)
    assert found == [s for s in range(num_steps + 1) if s % every == 0 and (s or zero)]


@settings(max_examples=100, deadline=None)
@given(spread())
def test_evenly(case):
    num_steps, count, zero = case
    found = steps_of("even", num_steps, num_checkpoints=count, step_zero=zero)
    assert found[-1] == num_steps
    assert len(found) == count + zero
    gaps = {b - a for a, b in zip([0, *found[zero:]], found[zero:], strict=False)}
    assert max(gaps) - min(gaps) <= 1


@settings(max_examples=200, deadline=None)
@given(spread())
def test_on_a_log_scale(case):
    num_steps, count, zero = case
    found = steps_of("log", num_steps, num_checkpoints=count, step_zero=zero)[zero:]
    assert len(found) == count
    assert found[-1] == num_steps
    assert found[0] == (1 if count > 1 else num_steps)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    # Denser early: rounding may take one step from a gap and give another to the one before.
    assert all(later >= earlier - 2 for earlier, later in itertools.pairwise(gaps))
    even = sweep_steps(Cadence("even", num_checkpoints=count), num_steps)
    assert all(ours <= theirs + 1 for ours, theirs in zip(found, even, strict=True))


def test_a_log_scale_by_hand():
    assert steps_of("log", 1000, num_checkpoints=4) == [1, 10, 100, 1000]
    assert steps_of("log", 16, num_checkpoints=5, step_zero=True) == [0, 1, 2, 4, 8, 16]
    assert steps_of("log", 6, num_checkpoints=6) == [1, 2, 3, 4, 5, 6]


@settings(max_examples=60, deadline=None)
@given(num_steps=RUNS, data=st.data(), zero=st.booleans())
def test_as_listed(num_steps, data, zero):
    steps = data.draw(st.lists(st.integers(0, num_steps), min_size=1, max_size=20))
    found = steps_of("list", num_steps, steps=tuple(steps), step_zero=zero)
    assert found == sorted({*steps, *([0] if zero else [])})


@pytest.mark.parametrize(
    ("cadence", "message"),
    [
        (Cadence("every", every=41), r"trajectories\.every=41 is longer than the proxy's run of 40 steps"),
        (Cadence("even", num_checkpoints=41), r"num_checkpoints=41 is more than the 40 steps"),
        (Cadence("log", num_checkpoints=41), r"num_checkpoints=41 is more than the 40 steps"),
        (Cadence("list", steps=(50, 10, 41)), r"run has 40 steps, so there is no sweep after 41, 50"),
    ],
)
def test_what_does_not_fit_the_run(cadence, message):
    with pytest.raises(InputError, match=message):
        sweep_steps(cadence, 40)


def test_the_config_has_these_fields_and_defaults():
    assert set(SCHEMA["trajectories"]["cadence"].choices) == set(_SPREAD)
    config = default().trajectories
    assert Cadence(config.cadence, config.every, config.num_checkpoints, config.steps) == Cadence()


def test_of_what_was_saved_the_listed_steps_are_swept():
    saved = [0, 3, 6, 9]
    assert Cadence().among(saved) == saved
    assert Cadence("list", steps=(3, 12)).among(saved) == [3]
    assert Cadence("list", steps=(6,), step_zero=True).among(saved) == [0, 6]
