"""The documents: their links lead somewhere, their commands parse, their imports exist."""

import ast
import importlib
import importlib.util
import re
import shlex

import pytest
from absl import flags

import launch  # noqa: F401  defines the flags
from s2l_jax.config import find_field
from s2l_jax.selection import METHODS
from tests.support.paths import REPOSITORY

PAGES = sorted(
    page
    for page in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    if "_build" not in page.parts and "jupyter_execute" not in page.parts
)
MADE_BY_SPHINX = {"configuration.md", "methods.md"}


def name_of(page):
    return page.relative_to(REPOSITORY).as_posix()


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in path or path in MADE_BY_SPHINX or path.rpartition("/")[2] in MADE_BY_SPHINX:
            continue
        found = page.parent / path if path else page
        assert found.exists(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors_of(found), f"{name_of(page)}: {link}"


def commands_of(page):
    """Each command of launch.py, its arguments alone; those with an ellipsis are no whole ones."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?\s*(?:\S+=\S+ )*python launch\.py (.*)$", text, re.MULTILINE):
        if "..." not in line and "<" not in line:
            yield shlex.split(line, comments=True)


def config_of(argument):
    path, _, base = argument.partition(":")
    spec = importlib.util.spec_from_file_location("config", REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([base] if base else []))


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands_of(page))], ids=name_of)
def test_commands_name_what_there_is(page):
    for arguments in commands_of(page):
        for argument in arguments:
            if argument.startswith("$"):
                continue  # flags that the page has named before
            if not argument.startswith("--"):
                break  # a pipe, a redirection, another program
            flag, _, value = argument[2:].partition("=")
            if flag.startswith("config."):
                assert find_field(flag.removeprefix("config.")), f"{name_of(page)}: no field {flag}"
            elif flag == "config" and (REPOSITORY / value.partition(":")[0]).parent.name == "configs":
                config_of(value)
            else:
                assert flag in flags.FLAGS or flag == "help", f"{name_of(page)}: no flag --{flag}"


def code_of(page):
    text = page.read_text()
    for block in re.findall(r"^```(?:\{code-cell\} )?python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield re.sub(r"^:tags:.*\n", "", block)


@pytest.mark.parametrize("page", [page for page in PAGES if any(code_of(page))], ids=name_of)
def test_python_parses_and_its_imports_from_here_exist(page):
    for block in code_of(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s2l_jax"):
                try:
                    module = importlib.import_module(node.module)
                except ModuleNotFoundError as error:
                    if (error.name or "").startswith("s2l_jax"):
                        raise
                    continue  # a library that only this page's readers need
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    submodules = hasattr(module, "__path__")
                    there = hasattr(module, alias.name) or (submodules and importlib.util.find_spec(whole))
                    assert there, f"{name_of(page)}: {whole}"


def test_the_lists_of_pages_have_the_same_pages_in_the_same_order():
    index = (REPOSITORY / "docs" / "index.md").read_text()
    listed = re.findall(r"^\* \[[^\]]+\]\(([\w/-]+)\.md\)", index, re.MULTILINE)
    trees = re.findall(r"```\{toctree\}\n(?::[^\n]*\n)*(.*?)```", index, re.DOTALL)
    assert listed == [page for tree in trees for page in tree.split()]
    mapped = re.findall(
        r"\]\(docs/([\w/-]+)\.md\)", (REPOSITORY / "README.md").read_text().split("## Use it")[0]
    )
    mapped = mapped[mapped.index("guide/installation") :]
    made = {f"reference/{page.removesuffix('.md')}" for page in MADE_BY_SPHINX} | {"reference/api"}
    assert mapped == [page for page in listed if page not in made]


def test_the_guide_has_every_method():
    page = (REPOSITORY / "docs" / "guide" / "selection.md").read_text()
    # Other tests of the same process may have entered methods of a user.
    ours = {name: each for name, each in METHODS.items() if each.rank.__module__.startswith("s2l_jax.")}
    assert set(re.findall(r'^\| `"(\w+)"` \|', page, re.MULTILINE)) == set(ours)
    printed = re.findall(r"^(\w+) +\d+ \d\.\d\d  (.*)$", page, re.MULTILINE)
    assert dict(printed) == {
        name: ", ".join(sorted(method.needs)) or "nothing but N" for name, method in ours.items()
    }
