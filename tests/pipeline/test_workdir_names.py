"""A workdir's path works whatever is in it, or is refused before anything is made."""

import pytest
from etils import epath

from s2l_jax.config import default
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.run import plan_pipeline
from tests.support import fake_object_store
from tests.support.workdir_parts import check_parts

ODD = "-a b  %20{x}${HOME}~'\"`!#&()+,;<=>@^|:é日本e\u0301\u200b😀\t\n.. "
UNFIT = ["a[b]c", "[", "a*b", "what?", "a\\b", "a\udcffb", "a\0b"]
UNFIT_REMOTE = [*UNFIT, "a#b", "a%20b", "a\nb", "a\tb"]


def workdir_of(path):
    return plan_pipeline(default(), path).workdir


def test_what_each_library_makes_in_an_odd_one(tmp_path):
    workdir = workdir_of(f"{tmp_path}/{ODD}/run")
    assert str(workdir) == f"{tmp_path}/{ODD}/run"
    check_parts(workdir)
    assert [file.name for file in tmp_path.iterdir()] == [ODD]


def test_what_each_library_makes_in_an_odd_one_on_a_store():
    pytest.importorskip("gcsfs")
    name = ODD.translate({ord(c): "_" for c in "#%\t\n"})
    with fake_object_store.start() as store:
        check_parts(workdir_of(f"gs://bucket/{name}/run"))
        assert all(file.startswith(f"{name}/run/") for file in store.objects)


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("path", ["{}", "{}/run", "deep/{}/run"])
def test_what_is_refused(tmp_path, monkeypatch, name, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"--workdir=.*: its path has .* rename it"):
        run_pipeline(default(), path.format(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", UNFIT_REMOTE)
def test_what_is_refused_on_a_store(name):
    with pytest.raises(InputError, match=r"--workdir=.*: its path has .* rename it"):
        workdir_of(f"gs://bucket/{name}/run")


def test_where_it_is_counts_too(tmp_path, monkeypatch):
    (tmp_path / "a[b]").mkdir()
    monkeypatch.chdir(tmp_path / "a[b]")
    with pytest.raises(InputError, match="its path has"):
        workdir_of("run")
    assert workdir_of(tmp_path / "run") == epath.Path(tmp_path / "run")
