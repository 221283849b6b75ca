"""Workdirs of odd names: what libraries make there is found again, and a killed run ends as an unbroken."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2l_jax.config import default
from s2l_jax.errors import InputError
from s2l_jax.pipeline.run import plan_pipeline
from tests.pipeline.test_resume import KILLS, drive, results
from tests.pipeline.test_workdir_names import ODD
from tests.support.workdir_parts import check_parts

pytestmark = pytest.mark.slow

NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name.strip(".") and len(name.encode(errors="surrogatepass")) < 200
)


@given(name=NAMES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_name(name, tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    path = f"{root}/{name}/run"
    if set(name) & set("[]*?\\") or any("\ud800" <= c <= "\udfff" for c in name):
        with pytest.raises(InputError, match="rename it"):
            plan_pipeline(default(), path)
        assert not list(root.iterdir())
        return
    check_parts(plan_pipeline(default(), path).workdir)
    assert [file.name for file in root.iterdir()] == [name]


def test_a_killed_run(tiny_checkpoint, tmp_path):
    for workdir, kills in ((tmp_path / "plain", ()), (tmp_path / ODD, KILLS)):
        drive(workdir, tiny_checkpoint, tmp_path / "cache", kills)
    assert results(tmp_path / "plain") == results(tmp_path / ODD)
    assert json.loads((tmp_path / ODD / "results.json").read_text())["selections"]
