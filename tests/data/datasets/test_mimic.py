"""Radiology notes, made up in the layout of MIMIC-III's NOTEEVENTS, become a pool."""

import csv
import gzip
import io
import json
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.config import load, validate
from s2l_jax.data.datasets.mimic import (
    FILTERS,
    Lengths,
    Report,
    ReportReader,
    main,
    source_of,
    split_sections,
)
from s2l_jax.data.pool import read_rows
from s2l_jax.data.prompts import render
from s2l_jax.errors import InputError

HEADER = [
    *("ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "STORETIME"),
    *("CATEGORY", "DESCRIPTION", "CGID", "ISERROR", "TEXT"),
]
FINDINGS = "The heart is of normal size. There is no effusion, and the lungs are clear on both sides."
IMPRESSION = "No acute process in the chest."


def report_text(findings=FINDINGS, impression=IMPRESSION, *, after=""):
    """A note as they are laid out: a head, the request, and the final report."""
    return f"""[**2151-7-16**] 2:29 PM
 CHEST (PORTABLE AP)                                             Clip # [**Clip Number (Radiology) 101**]
 Reason: eval for infiltrate, "quoted"
 Admitting Diagnosis: SEPSIS
 ______________________________________________________________________________
 [**Hospital 2**] MEDICAL CONDITION:
  70 year old with fever
 REASON FOR THIS EXAMINATION:
  infiltrate?
 ______________________________________________________________________________
                                 FINAL REPORT
 INDICATION:  Fever.

 COMPARISON:  [**2151-7-12**].

 FINDINGS:  {findings}

 IMPRESSION:  {impression}

 DR. [**First Name (STitle) 3**]
{after}"""


def note(number, text, patient=None, category="Radiology", description="CHEST (PORTABLE AP)", error=""):
    patient = number if patient is None else patient
    return [number, patient, 1, "2151-07-16", "", "", category, description, "", error, text]


def write(path, notes, header=HEADER):
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerows([header, *notes])
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def words(count):
    return " ".join(f"w{n}" for n in range(count))


NOTES = [
    note(1, report_text()),
    note(
        2,
        report_text("Another finding in many words: the liver is large, and the spleen is not seen at all."),
    ),
    note(3, "Nursing note", category="Nursing"),
    note(4, report_text(), error="1"),
    note(5, report_text().replace("FINDINGS:", "TECHNIQUE:")),
    note(6, report_text(after=" FINDINGS: an addendum")),
    note(7, report_text().replace("IMPRESSION:", "RECOMMENDATION:")),
    note(8, report_text("Too short.")),
    note(9, report_text(words(700))),
    note(10, report_text(impression="Normal.")),
    note(11, report_text(words(12), words(13))),
    note(12, report_text()),  # the text of note 1 again
]


@pytest.mark.parametrize("name", ["NOTEEVENTS.csv", "NOTEEVENTS.csv.gz"])
def test_each_filter_counts_what_passes_it(tmp_path, name):
    reader = ReportReader(write(tmp_path / name, NOTES))
    reports = list(reader)
    assert [report.row_id for report in reports] == [1, 2]
    assert (reports[0].findings, reports[0].impression) == (FINDINGS, IMPRESSION)
    assert reader.counts == {
        "notes": 12,
        "radiology": 11,
        "not marked as an error": 10,
        "one findings section": 8,
        "one impression section": 7,
        "findings of the length asked for": 5,
        "impression of the length asked for": 4,
        "impression shorter than its findings": 3,
        "not the same text as an earlier note": 2,
    }
    assert list(reader.counts) == ["notes", *FILTERS]
    assert list(reader) == reports  # reading starts afresh


def test_a_section_runs_over_inner_headings_and_pages():
    text = report_text("The heart is large.\n LUNGS: clear").replace(
        "\n\n IMPRESSION",
        "\n                                     (Over)\n\n [**2151-7-16**] 2:29 PM\n CHEST\n Reason: again\n"
        " FINAL REPORT\n (Cont)\n and no effusion since [**Month 3**].\n\n IMPRESSION",
    )
    sections = split_sections(text)
    assert ("FINDINGS", "The heart is large. LUNGS: clear and no effusion since ___.") in sections
    assert sections[-1] == ("IMPRESSION", IMPRESSION)


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("FINDINGS", "FINDINGS"),
        ("Findings", "FINDINGS"),
        ("CT HEAD FINDINGS", "FINDINGS"),
        ("CONCLUSION", "IMPRESSION"),
        ("Impression", "IMPRESSION"),
        ("PROVISIONAL FINDINGS IMPRESSION (PFI)", "other"),
        ("WET READ", "other"),
    ],
)
def test_headings(heading, section):
    assert split_sections(f"\n {heading}:  text\n here")[0] == (section, "text here")
    assert split_sections(f"the {heading} are") == []


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_split(text):
    for name, section in split_sections(text):
        assert name in ("FINDINGS", "IMPRESSION", "other")
        assert section == " ".join(section.split())


@pytest.mark.parametrize(
    ("description", "source"),
    [
        ("CT HEAD W/O CONTRAST", "CT head"),
        ("MR CERVICAL SPINE", "MR spine"),
        ("CHEST (PORTABLE AP)", "X-ray chest"),
        ("CT ABDOMEN W/CONTRAST", "CT abdomen"),
        ("CTA CHEST W&W/O C&RECONS", "CT chest"),
        ("ABDOMEN U.S. (COMPLETE STUDY)", "other abdomen"),
        ("", "other other"),
    ],
)
def test_sources(description, source):
    assert source_of(description) == source


def test_the_command_writes_pools_split_by_patient(tmp_path, capsys):
    notes = [
        note(
            n,
            report_text(f"{FINDINGS} Case {n}."),
            patient=n // 3,
            description="CT HEAD" if n % 2 else "MR HEAD",
        )
        for n in range(1, 241)
    ]
    path = write(tmp_path / "NOTEEVENTS.csv.gz", [*notes, *NOTES])
    assert main([path, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "252  notes" in said
    assert "251  radiology" in said
    rows = {
        split: [json.loads(line) for line in (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, rows.values())) == 242
    assert {split: len(found) > 0 for split, found in rows.items()} == dict.fromkeys(rows, True)
    assert len(rows["train"]) > 150
    patients = {s: {int(row["id"]) // 3 for row in found if int(row["id"]) > 2} for s, found in rows.items()}
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["validation"]
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert counts["splits"]["train"]["reports"] == len(rows["train"])
    assert set(counts["splits"]["train"]["sources"]) >= {"CT head", "MR head"}
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "counts.json", "test.jsonl", "train.jsonl", "validation.jsonl"
    ]  # fmt: skip
    pool = list(read_rows(str(tmp_path / "out" / "train.jsonl")))
    prompt, response = render("radiology", pool[0])
    assert prompt.startswith("Write the impression")
    assert f"Findings:\n{FINDINGS}" in prompt
    assert response == IMPRESSION
    # A patient's split does not depend on what else the file holds.
    assert (
        main([write(tmp_path / "few.csv", notes[:9]), "--out", str(tmp_path / "few"), "--sources", "CT head"])
        == 0
    )
    few = [json.loads(x) for s in rows for x in (tmp_path / "few" / f"{s}.jsonl").read_text().splitlines()]
    assert {row["id"] for row in few} == {"1", "3", "5", "7", "9"}
    assert all(
        row in rows[split] for split in rows for row in few if row["id"] in {r["id"] for r in rows[split]}
    )


def test_splits_have_their_shares():
    splits = [Report(0, patient, "", "", "").split for patient in range(20_000)]
    shares = [splits.count(name) / len(splits) for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_notes_are_streamed(tmp_path):
    long = "x" * 2_000
    path = write(tmp_path / "n.csv.gz", [note(n, long + str(n), category="Nursing") for n in range(10_000)])
    reader = ReportReader(path)
    tracemalloc.start()
    assert list(reader) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reader.counts["notes"] == 10_000
    assert peak < 2_000_000  # of 20 MB


@pytest.mark.parametrize(
    ("header", "notes", "message"),
    [
        ([*HEADER[:-1], "BODY"], [], r"n\.csv: its header has no TEXT; it has"),
        (
            HEADER,
            [NOTES[0], NOTES[1][:-1]],
            r"n\.csv: note 2 \(up to line \d+\) has 10 columns, the header 11",
        ),
        (HEADER, [["x", *NOTES[0][1:]]], r"n\.csv: note 1: its ROW_ID is no number: 'x'"),
    ],
)
def test_bad_files_are_named(tmp_path, header, notes, message):
    with pytest.raises(InputError, match=message):
        list(ReportReader(write(tmp_path / "n.csv", notes, header)))


def test_a_cut_and_a_missing_file(tmp_path, capsys):
    path = tmp_path / "n.csv.gz"
    write(path, NOTES * 20)
    path.write_bytes(path.read_bytes()[:-200])
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read after" in capsys.readouterr().err
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert main([str(tmp_path / "none.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "none.csv cannot be read after 0 notes" in capsys.readouterr().err


def test_lengths_are_options(tmp_path):
    path = write(tmp_path / "n.csv", NOTES)
    counts = [len(list(ReportReader(path, Lengths(min_impression=1)))), len(list(ReportReader(path)))]
    assert counts == [3, 2]


def test_the_command_has_help():
    found = subprocess.run(
        [sys.executable, "-m", "s2l_jax.data.datasets.mimic", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "NOTEEVENTS.csv.gz" in found.stdout
    assert "--min-findings" in found.stdout


def test_the_config_is_valid():
    config = load("clinical_pythia70m")
    validate(config)
    assert config.evaluation.metrics == ("bleu", "rouge")
