"""benchmarks/parity.py: a checkpoint beside PyTorch; what differs is told by its exit status."""

import importlib
import sys

import numpy as np
import pytest

from s2l_jax.data.datasets.base import base_checkpoint
from tests.support.paths import REPOSITORY

pytest.importorskip("torch")
pytestmark = pytest.mark.long


@pytest.fixture
def parity(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    arguments = ["--rows=synthetic", "--num-rows=6", "--answers=3", "--new=8"]
    monkeypatch.setattr(sys, "argv", ["parity.py", f"--checkpoint={base_checkpoint('proxy')}", *arguments])
    return importlib.import_module("parity")


def status_of(parity):
    with pytest.raises(SystemExit) as ended:
        parity.main()
    return ended.value.code


def test_an_embedded_model_is_what_it_is_in_pytorch(parity, capsys):
    assert status_of(parity) == 0
    shown = capsys.readouterr().out
    assert "on 6 of 6 rows" in shown
    assert "answers: 3 of 3 are the same" in shown
    assert "every tensor is what it was" in shown


@pytest.mark.parametrize("losses", [np.full(6, np.nan, np.float32), np.ones(6, np.float32)])
def test_losses_that_differ_or_are_none_end_with_status_1(parity, losses, monkeypatch):
    monkeypatch.setattr(parity.s2l_jax, "example_losses", lambda *args, **options: losses)
    assert status_of(parity) == 1


def test_a_tensor_that_came_back_as_another_is_named(parity, monkeypatch, capsys):
    save = parity.hf.save_model

    def other(folder, params, config, *args, **options):
        doubled = {"embedding": params["embed"]["embedding"] * 2}
        save(folder, params | {"embed": doubled}, config, *args, **options)

    monkeypatch.setattr(parity.hf, "save_model", other)
    assert status_of(parity) == 1
    assert "embed" in capsys.readouterr().out.split("export: ")[1]
