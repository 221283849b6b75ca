"""Rows that a run could not choose are on the page, with score, reason and text."""

import numpy as np

import s2l_jax
from s2l_jax.pipeline.results import _left_out
from s2l_jax.report.findings import Findings
from s2l_jax.report.rows import PoolRows, RowText
from s2l_jax.report.section import Section
from s2l_jax.report.sections.rows_left_out import SHOWN_ROWS, rows_left_out
from s2l_jax.selection import Selection
from s2l_jax.selection.suspects import UNLEARNT


def chosen_from(tmp_path, share):
    """A subset of 200 rows, of which the last 30 are not learnt, as it is stored and read again."""
    rng = np.random.default_rng(0)
    losses = np.linspace(2.0, 0.1, 8, dtype=np.float32) * rng.uniform(0.9, 1.1, (200, 1)).astype(np.float32)
    losses[170:] = 2.0 + rng.random((30, 8), np.float32)
    s2l_jax.select(losses, 40, num_clusters=4, stratify_by="none", drop_unlearnt=share).save(tmp_path)
    return Selection.load(tmp_path), losses


def test_the_worst_rows_are_listed_with_what_is_known_of_them(tmp_path):
    chosen, losses = chosen_from(tmp_path, 0.15)
    found = _left_out(chosen, slice(None))
    assert sorted(found.rows.tolist()) == list(range(170, 200))
    scores = s2l_jax.suspects(losses)
    assert found.rows.tolist() == sorted(found.rows, key=lambda row: -scores[row])
    np.testing.assert_allclose(found.scores, scores[found.rows])
    rows = PoolRows(
        chosen.ids, texts=lambda wanted: [RowText(f"question {r}", f"answer {r}") for r in wanted]
    )
    section = Section("left-out", "Rows left out")
    rows_left_out(section, Findings({}, rows=rows, left_out={"clean": found, "clean-seed1": found}))
    assert len(section.rows) == SHOWN_ROWS
    worst = found.rows[0]
    name, count, row, source, score, reason, text = section.rows[0]
    assert (name, count, row, source) == ("clean and 1 more", "30", str(worst), "-")
    assert (score, reason) == (f"{scores[worst]:.1f}", UNLEARNT)
    assert text == f"question {worst} → answer {worst}"


def test_a_run_without_a_filter_has_none(tmp_path):
    chosen, _ = chosen_from(tmp_path, 0.0)
    assert _left_out(chosen, slice(None)) is None
    section = Section("left-out", "Rows left out")
    rows_left_out(section, Findings({}))
    assert not section.filled
