"""MIMIC-III radiology notes as a pool: findings are the input, the impression is the response.

    python -m s2l_jax.data.datasets.mimic NOTEEVENTS.csv.gz --out clinical/

Reads PhysioNet's file as it is, one note at a time, and writes train.jsonl, validation.jsonl and
test.jsonl with `instruction`, `input`, `output`, `source` and `id`, and counts.json.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import gzip
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TextIO, cast

from etils import epath

from s2l_jax import artifacts
from s2l_jax.data.pool_files import quoted, shortened
from s2l_jax.data.prompts import RADIOLOGY_TASK
from s2l_jax.errors import InputError

SPLITS = ("train", "validation", "test")
_SHARES = (0.8, 0.1, 0.1)
_COLUMNS = ("ROW_ID", "SUBJECT_ID", "CATEGORY", "DESCRIPTION", "ISERROR", "TEXT")
_LONGEST_FIELD = 2**24  # characters; csv's own limit is below the longest notes

# What a note must pass, in order; each is counted under its words.
FILTERS = (
    "radiology",
    "not marked as an error",
    "one findings section",
    "one impression section",
    "findings of the length asked for",
    "impression of the length asked for",
    "impression shorter than its findings",
    "not the same text as an earlier note",
)

# A section runs from its heading to the next of these; other headings, such as "LUNGS:", are part of it.
_FINDINGS, _IMPRESSION = "FINDINGS", "IMPRESSION"
_HEADINGS = {
    _FINDINGS: r"(?:[A-Z]+ ){0,3}FINDINGS?",
    _IMPRESSION: r"(?:FINAL |OVERALL )?(?:IMPRESSIONS?|CONCLUSIONS?)",
    "other": (
        r"(?:CLINICAL )?(?:INDICATIONS?|HISTORY|INFORMATION)|COMPARISONS?|TECHNIQUES?|PROCEDURE|REASON[A-Z ]*"
        r"|EXAM(?:INATION)?|STUDY|RECOMMENDATIONS?|ADDENDUM|WET READ[A-Z ]*|PROVISIONAL [A-Z ]*(?:\(PFI\))?|"
        r"(?:ADMITTING |UNDERLYING )?(?:DIAGNOSIS|MEDICAL CONDITION)|ATTENDING[A-Z ]*|NOTIFICATION"
    ),
}
_HEADING = re.compile(
    r"^[ \t]*(?:"
    + "|".join(f"(?P<{name}>{pattern})" for name, pattern in reversed(_HEADINGS.items()))
    + r")[ \t]*:",
    re.MULTILINE | re.IGNORECASE,
)
# The head of the note again, between pages.
_PAGE_BREAK = re.compile(r"\(Over\).*?(?:\(Cont\)|\Z)", re.DOTALL)
_END = re.compile(
    r"^[ \t]*[_=\-*]{5,}[ \t]*$|^[ \t]*(?:DR\.|Electronically signed)", re.MULTILINE | re.IGNORECASE
)
_MASKED = re.compile(r"\[\*\*.*?\*\*\]", re.DOTALL)  # what de-identification took out

_MODALITIES = (
    ("MR", r"\bMRA?\b|\bMRI\b|\bMRCP\b|\bMRV\b"),
    ("CT", r"\bCTA?\b"),
    ("ultrasound", r"\bUS\b|ULTRASOUND|DUPLEX|DOPPLER"),
    ("X-ray", r"\bX-?RAY\b|PORTABLE|\bAP\b|\bPA\b|\bVIEWS?\b|\bFILM\b"),
)
_ANATOMIES = (
    ("head", r"HEAD|BRAIN|SKULL"),
    ("sinus", r"SINUS|ORBIT|FACIAL|MAXILLOFACIAL"),
    ("neck", r"NECK|CAROTID"),
    ("spine", r"SPINE|LUMBAR|THORACIC|CERVICAL"),
    ("chest", r"CHEST|THORAX|LUNG"),
    ("abdomen", r"ABD|LIVER|GALLBLADDER|RENAL|KIDNEY"),
    ("pelvis", r"PELVI|HIP"),
    ("extremity", r"EXT\b|EXTREMIT|KNEE|ANKLE|FOOT|HAND|WRIST|SHOULDER|FEMUR|TIB"),
)


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Bounds on words, inclusive."""

    min_findings: int = 10
    max_findings: int = 600
    min_impression: int = 2
    max_impression: int = 150


@dataclasses.dataclass(frozen=True)
class Report:
    """A note that passed all filters."""

    row_id: int
    subject_id: int
    source: str  # modality and anatomy, such as "CT head"
    findings: str
    impression: str

    @property
    def split(self) -> str:
        """Of its patient: all notes of one are in the same split, whatever else the file holds."""
        digest = hashlib.blake2b(f"mimic-iii/{self.subject_id}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        return SPLITS[0] if share < _SHARES[0] else SPLITS[1] if share < sum(_SHARES[:2]) else SPLITS[2]

    def as_row(self) -> dict[str, Any]:
        """In the pool's schema."""
        return {
            "instruction": RADIOLOGY_TASK,
            "input": self.findings,
            "output": self.impression,
            "source": self.source,
            "id": str(self.row_id),
        }


class ReportReader:
    """Iterates over the reports of NOTEEVENTS, reading as it goes; `counts` says what passed each filter.

    Iterating raises InputError for a file that cannot be read, a header without the columns that are
    needed, and a row whose SUBJECT_ID or ROW_ID is no number.
    """

    def __init__(self, path: str, lengths: Lengths | None = None, sources: Sequence[str] = ()):
        self._path, self._lengths, self._wanted = path, lengths or Lengths(), set(sources)
        self.counts: dict[str, int] = {}

    def __iter__(self) -> Iterator[Report]:
        names = [*FILTERS, *(["of a source asked for"] if self._wanted else [])]
        self.counts = dict.fromkeys(["notes", *names], 0)
        seen: set[bytes] = set()
        for place, note in _notes(self._path):
            self.counts["notes"] += 1
            passed, report = self._filtered(place, note, seen)
            for name in names[:passed]:
                self.counts[name] += 1
            if report is not None:
                yield report

    def _filtered(self, place: str, note: Mapping[str, str], seen: set[bytes]) -> tuple[int, Report | None]:
        """How many filters a note passes, and the report when it passes them all."""
        if note["CATEGORY"].strip() != "Radiology":
            return 0, None
        if note["ISERROR"].strip() not in ("", "0"):
            return 1, None
        sections = split_sections(note["TEXT"])
        findings = [text for name, text in sections if name == _FINDINGS and text]
        if len(findings) != 1:
            return 2, None
        impressions = [text for name, text in sections if name == _IMPRESSION and text]
        if len(impressions) != 1:
            return 3, None
        long, short = (len(text.split()) for text in (findings[0], impressions[0]))
        bounds = self._lengths
        if not bounds.min_findings <= long <= bounds.max_findings:
            return 4, None
        if not bounds.min_impression <= short <= bounds.max_impression:
            return 5, None
        if short >= long:
            return 6, None
        content = hashlib.blake2b(f"{findings[0]}\0{impressions[0]}".encode(), digest_size=16).digest()
        if content in seen:
            return 7, None
        seen.add(content)
        source = source_of(note["DESCRIPTION"])
        if self._wanted and source not in self._wanted:
            return 8, None
        row, patient = (_number(place, note, column) for column in ("ROW_ID", "SUBJECT_ID"))
        return 9 if self._wanted else 8, Report(row, patient, source, findings[0], impressions[0])


def split_sections(text: str) -> list[tuple[str, str]]:
    """The sections of a note: "FINDINGS", "IMPRESSION" or "other", and the text of each.

    Page breaks, with what is repeated at them, are taken out; white space runs are made one space,
    masked identifiers "___". A line of dashes or a signature ends a section.
    """
    text = _PAGE_BREAK.sub("\n", text)
    marks = list(_HEADING.finditer(text))
    sections = []
    for n, mark in enumerate(marks):
        end = marks[n + 1].start() if n + 1 < len(marks) else len(text)
        body = _END.split(text[mark.end() : end], maxsplit=1)[0]
        sections.append((str(mark.lastgroup), " ".join(_MASKED.sub("___", body).split())))
    return sections


def source_of(description: str) -> str:
    """Modality and anatomy of an examination, from its description; "other" for what is not told."""
    upper = description.upper()
    found = (
        next((name for name, pattern in table if re.search(pattern, upper)), "other")
        for table in (_MODALITIES, _ANATOMIES)
    )
    return " ".join(found)


def _notes(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and columns of each note."""
    csv.field_size_limit(_LONGEST_FIELD)
    number = 0
    try:
        with _opened(path) as text:
            reader = csv.reader(text)
            header = [name.strip().upper() for name in next(reader, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise InputError(
                    f"{path}: its header has no {', '.join(missing)}; it has {quoted(header) or 'nothing'}. "
                    "NOTEEVENTS.csv(.gz) of MIMIC-III is needed."
                )
            at = {name: header.index(name) for name in _COLUMNS}
            for number, row in enumerate(reader, 1):
                if len(row) != len(header):
                    raise InputError(
                        f"{path}: note {number} (up to line {reader.line_num}) has {len(row)} columns, the "
                        f"header {len(header)}: the file is damaged; compare its checksum with PhysioNet's."
                    )
                yield f"{path}: note {number}", {name: row[i] for name, i in at.items()}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read after {number:,} notes ({error}); compare its checksum with PhysioNet's."
        ) from error


def _opened(path: str) -> TextIO:
    file = cast(BinaryIO, epath.Path(path).open("rb"))
    opened = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.endswith(".gz") else file
    return io.TextIOWrapper(opened, encoding="utf-8", newline="")


def _number(place: str, note: Mapping[str, str], column: str) -> int:
    try:
        return int(note[column])
    except ValueError:
        raise InputError(f"{place}: its {column} is no number: {shortened(note[column])}") from None


def write_pool(reader: ReportReader, out: epath.PathLike) -> dict[str, Any]:
    """Write a pool file for each split, and counts.json; returns the counts."""
    folder = epath.Path(out)
    splits: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in SPLITS}
    patients: dict[str, set[int]] = {split: set() for split in SPLITS}
    with contextlib.ExitStack() as stack:
        files = {}
        for split in SPLITS:
            path = stack.enter_context(artifacts.writing(folder / f"{split}.jsonl"))
            files[split] = stack.enter_context(path.open("w"))
        for report in reader:
            files[report.split].write(json.dumps(report.as_row()) + "\n")
            splits[report.split][report.source] += 1
            patients[report.split].add(report.subject_id)
    counts = {
        "filters": reader.counts,
        "splits": {
            split: {
                "reports": found.total(),
                "patients": len(patients[split]),
                "sources": dict(found.most_common()),
            }
            for split, found in splits.items()
        },
    }
    artifacts.write_json(folder / "counts.json", counts)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m s2l_jax.data.datasets.mimic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notes", help="NOTEEVENTS.csv or NOTEEVENTS.csv.gz of MIMIC-III 1.4")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--sources", default="", help="keep these alone, such as 'CT head,CT chest'; default all"
    )
    for field in dataclasses.fields(Lengths):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=int, default=field.default, help=f"words; default {field.default}")
    options = vars(parser.parse_args(argv))
    lengths = Lengths(**{field.name: options[field.name] for field in dataclasses.fields(Lengths)})
    sources = [name.strip() for name in options["sources"].split(",") if name.strip()]
    try:
        counts = write_pool(ReportReader(options["notes"], lengths, sources), options["out"])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, count in counts["filters"].items():
        print(f"{count:>10,}  {name}")
    for split, found in counts["splits"].items():
        print(f"{found['reports']:>10,}  {split}, {found['patients']:,} patients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
