"""The code of the documents runs; a block that does not is marked, with the reason."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.long

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [
    page
    for part in ("guide", "design", "results")
    for page in sorted((REPOSITORY / "docs" / part).glob("*.md"))
]
BLOCK = re.compile(
    r"^(?:<!-- (not run|dry): ([^\n]+) -->\n)?```(bash|sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
JSON = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What blocks go by without saying so each time.
BEFORE = """
import numpy as np
import s2l_jax
from ml_collections import ConfigDict
from s2l_jax.config import load, run
from s2l_jax.data.datasets.base import base_checkpoint
config = load("quickstart")
path = base_checkpoint("proxy")
losses = np.load("losses.npy")
ids, steps = np.arange(len(losses)), list(range(1, 11))
responses, references = ["It is 2.", "3"], ["2", "4"]
"""


def blocks_of(page):
    """(mark, language, code) of each block that is run; of a dry one launch.py only says what it would do."""
    for mark, _, language, code in BLOCK.findall(page.read_text()):
        if mark != "not run":
            yield mark, language, code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the repository's programs, and the files that the pages speak of."""
    for name in ("launch.py", "configs", "benchmarks"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    losses = np.random.default_rng(0).random((40_000, 10), np.float32)
    np.save(tmp_path / "losses.npy", losses)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks_of(page))], ids=lambda page: page.name)
def test_blocks_run_one_after_another(page, folder):
    python, shell = [BEFORE], []
    if rows := JSON.search(page.read_text()):
        (folder / "pool.jsonl").write_text(rows[1])
    for mark, language, code in blocks_of(page):
        if language == "python":
            python.append(code)
        else:
            shell.append(code.replace("launch.py ", "launch.py --dry_run ") if mark == "dry" else code)
    programs = [[sys.executable, "-c", "\n".join(python)]] if len(python) > 1 else []
    programs += [["bash", "-e", "-c", "\n".join(shell)]] if shell else []
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    }
    for program in programs:
        done = subprocess.run(
            program, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page.name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
