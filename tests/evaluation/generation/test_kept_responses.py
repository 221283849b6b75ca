"""Responses that are kept while a benchmark is under way: a damaged file is asked again."""

import pytest
from etils import epath

from s2l_jax.evaluation.generation import kept_responses
from s2l_jax.evaluation.generation.kept_responses import KeptResponses

PROMPTS = {index: [index, 7] for index in (0, 1, 2, 5, 8)}


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(kept_responses, "_AT_ONCE", 2)
    return []


def answers(folder, asked):
    def respond(prompts, indices, progress):
        asked.append(list(indices))
        return [f"print({prompt[0]})" for prompt in prompts]

    return KeptResponses(folder).responses("text", PROMPTS, respond, lambda done: None)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_file_is_asked_again(tmp_path, asked, damage):
    folder = epath.Path(tmp_path)
    first = answers(folder, asked)
    assert asked == [[0, 1], [2, 5], [8]]
    assert answers(folder, asked) == first
    assert len(asked) == 3
    file = folder / "text-0000002.json"
    whole = file.read_text()
    changed = {"flip": whole.replace("print(5)", "print(7)"), "cut": whole[:40], "empty": ""}
    if damage == "gone":
        file.unlink()
    else:
        file.write_text(changed[damage])
    assert answers(folder, asked) == first
    assert asked[3:] == [[2, 5]]
    assert file.read_text() == whole


def test_damaged_program_runs_are_made_again(tmp_path):
    ran = []

    def runs():
        return KeptResponses(epath.Path(tmp_path)).program_runs("text", lambda: ran.append(1) or [None, None])

    assert runs() == runs() == [None, None]
    assert len(ran) == 1
    (tmp_path / "programs-text.json").write_text("[null, null]")
    assert runs() == [None, None]
    assert len(ran) == 2
