"""Registries: files enter what they have, names are found or the nearest is named, users' modules count."""

import sys

import pytest

from s2l_jax.errors import InputError
from s2l_jax.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules that enter things, and a module beside it."""
    folder = tmp_path / "things_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from s2l_jax.registry import Registry\nTHINGS = Registry('thing', int, ['things_of_tests'])\n"
    )
    (folder / "a.py").write_text("from things_of_tests import THINGS\nTHINGS.enter('one', 1)\n")
    (folder / "b.py").write_text("from things_of_tests import THINGS\nTHINGS.enter('two', 2)\n")
    (tmp_path / "own_things.py").write_text("three = 3\nnot_one = 'text'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield sys.modules.get("things_of_tests") or __import__("things_of_tests")
    for name in [n for n in sys.modules if n.partition(".")[0] in ("things_of_tests", "own_things")]:
        del sys.modules[name]


def test_files_are_found(package):
    assert list(package.THINGS) == ["one", "two"]
    assert package.THINGS.find("two") == package.THINGS["two"] == 2
    assert "three" not in package.THINGS


def test_a_module_of_the_users_own(package):
    assert package.THINGS.find("own_things:three") == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tow", "unknown thing: 'tow'; did you mean 'two'\\? There are: one, two.$"),
        ("own_things:four", "'own_things:four' cannot be imported .*module:name"),
        ("no_such_module:x", "cannot be imported"),
        (":x", "cannot be imported"),
        ("own_things:not_one", "'own_things:not_one' is no thing, it is a str"),
    ],
)
def test_what_is_not_there(package, name, message):
    with pytest.raises(InputError, match=message):
        package.THINGS.find(name)


def test_a_name_is_given_once():
    things = Registry("thing", int, [])
    things.enter("a", 1)
    with pytest.raises(ValueError, match="two things are called 'a'"):
        things.enter("a", 2)
