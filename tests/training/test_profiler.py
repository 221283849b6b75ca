"""Tracing some steps of a training run."""

import multiprocessing

import pytest
from etils import epath

from s2l_jax.errors import InputError
from s2l_jax.training.profiler import Profiler, Steps


@pytest.mark.parametrize(("text", "steps"), [("10-15", (10, 15)), ("steps 3-3", (3, 3))])
def test_steps_are_parsed(text, steps):
    assert Steps.parse(text) == Steps(*steps)


@pytest.mark.parametrize("text", ["", "10", "5-4", "0-3", "a-b"])
def test_what_is_no_range_of_steps_is_refused(text):
    with pytest.raises(InputError, match=r"--profile=.*such as 10-15"):
        Steps.parse(text)


def train(profiler, first, last):
    """What the training loop asks a hook, for steps `first` to `last`."""
    traced = []
    if first == 1 and profiler.is_due(0):
        profiler.at_cadence(0, {})
    for step in range(first, last + 1):
        traced.append((step, profiler._tracing is not None))
        if profiler.is_due(step):
            profiler.at_cadence(step, {})
    profiler.close()
    return [step for step, is_traced in traced if is_traced]


def traced_files(folder, steps, last):
    traced = train(Profiler(epath.Path(folder), Steps(*steps)), 1, last)
    return traced, len(list(folder.glob("profile/plugins/profile/*/*.xplane.pb")))  # what XProf reads


def test_these_steps_are_traced_and_no_others(tmp_path):
    cases = [((1, 2), 4, [1, 2]), ((3, 3), 4, [3]), ((3, 9), 4, [3, 4])]
    asked = [(tmp_path / str(n), steps, last) for n, (steps, last, _) in enumerate(cases)]
    # libtpu 0.0.52 ends a process that traces after it has described a slice, as other tests have it do.
    with multiprocessing.get_context("spawn").Pool(1) as process:
        found = process.starmap(traced_files, asked)
    assert found == [(traced, 1) for *_, traced in cases]


def test_a_run_that_goes_on_behind_these_steps_says_so(tmp_path, capsys):
    assert train(Profiler(epath.Path(tmp_path), Steps(3, 4)), 6, 8) == []
    assert "no trace" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
