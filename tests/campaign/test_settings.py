"""Each field changed under a finished workdir, whichever stage is asked for: refused, or without effect."""

import json
import re
import shutil

import pytest

from s2l_jax.config import find_field
from s2l_jax.errors import InputError
from s2l_jax.pipeline import run_pipeline
from tests.support.changed_fields import (
    FIELDS,
    changed,
    config_of,
    content,
    finish,
    is_active,
    one_device_unless_more_are_named,
    write_files,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

STAGES = (["pool"], ["proxy"], ["trajectories"], ["selection"], ["target"], ["evaluation"], ["report"])
REFUSED = (
    r"made with other settings|trajectories\.(snapshots|checkpoints): (.* has a proxy of its own|no snapshot)"
)
# A subset that is added, where the stages before the one asked for were not run.
WAITS = r"run the (selection stage|stage target)"


@pytest.fixture(scope="module")
def files(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def finished(files, tiny_checkpoint, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("settings") / "run"
    with one_device_unless_more_are_named():
        finish(workdir, config_of(files, tiny_checkpoint), files)
        yield workdir


@pytest.mark.parametrize("stages", STAGES, ids=lambda stages: stages[0])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_changes(name, stages, finished, tiny_checkpoint, files, tmp_path):
    field, config = find_field(name), changed(config_of(files, tiny_checkpoint), name, files)
    workdir = finished
    if field.adds or name == "trajectories.path":  # which leaves a record of what was imported
        workdir = shutil.copytree(finished, tmp_path / "run")
    before, results = content(workdir), json.loads((finished / "results.json").read_text())
    results.pop("timing")
    if field.decides and not field.adds and is_active(name, config):
        with pytest.raises(InputError, match=REFUSED):
            run_pipeline(config, workdir, stages=stages, name="decides")
        if name != "trajectories.path":
            assert content(workdir) == before
        assert {
            k: v for k, v in json.loads((workdir / "results.json").read_text()).items() if k != "timing"
        } == results
        return
    refused = ""
    try:
        found = run_pipeline(config, workdir, stages=stages, name="decides")
    except InputError as error:
        refused = str(error)
    if refused:
        assert field.adds
        assert stages[0] in ("target", "evaluation")
        assert re.search(WAITS, refused)
        return
    after = content(workdir)
    assert {file: after[file] for file in before} == before
    if not field.adds:
        assert {k: v for k, v in found.items() if k != "timing"} == results
