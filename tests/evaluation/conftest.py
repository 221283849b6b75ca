"""What tests of evaluation share."""

import json

import pytest

from tests.support.benchmark_files import FILES


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The six files, made up in the schemas of the published ones."""
    where = tmp_path_factory.mktemp("eval")
    for name, rows in FILES.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (where / name).write_text(lines if name.endswith("l") else json.dumps(rows))
    return where
