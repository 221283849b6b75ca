"""Grade stored responses again, without a model.

    python -m s2l_jax.evaluation.regrade runs/math/evaluation/s2l
    python -m s2l_jax.evaluation.regrade answers.jsonl --benchmark gsm8k --out graded.jsonl

PATH is a predictions.jsonl, a folder with some below it, or a JSON Lines file from elsewhere whose rows
have `response` and `reference`. What is stored is left as it is: --out is where new verdicts go.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError
from s2l_jax.evaluation.execution.response_programs import run_programs
from s2l_jax.evaluation.grading.answer_types import ANSWER_TYPES
from s2l_jax.evaluation.grading.references import check_references
from s2l_jax.evaluation.predictions import (
    PREDICTIONS,
    Prediction,
    graded,
    read_predictions,
    write_predictions,
)
from s2l_jax.evaluation.summary import summarise
from s2l_jax.evaluation.tasks.benchmark import BENCHMARKS
from s2l_jax.records import stored_digests

_SHOWN = 5  # changed verdicts that are printed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m s2l_jax.evaluation.regrade",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="predictions.jsonl, or a folder with some below it")
    parser.add_argument(
        "--benchmark",
        default="",
        help=f"{', '.join(BENCHMARKS)}, or module:name of your own; default: that of each file's folder",
    )
    parser.add_argument(
        "--answer-type", default="", choices=["", *ANSWER_TYPES], help="default: the benchmark's"
    )
    parser.add_argument(
        "--run-programs",
        action="store_true",
        help="run responses that are programs again (docs/design/security.md)",
    )
    parser.add_argument(
        "--unconfined", action="store_true", help="with --run-programs: with nothing held back"
    )
    parser.add_argument(
        "--out", default="", help="file, or folder where PATH is one; default: nothing is written"
    )
    options = parser.parse_args(argv)
    try:
        _regrade_all(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _regrade_all(options: Any) -> None:
    path = epath.Path(options.path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    files = [path]
    if path.is_dir():
        files = [file for file in artifacts.files_under(path) if file.name == PREDICTIONS]
        if not files:
            raise InputError(
                f"{path} has no {PREDICTIONS} in it; name a workdir, its evaluation folder or a file."
            )
    for file in files:
        kept = stored_digests(file.parent) if file.name == PREDICTIONS else {}
        if found := integrity.damage(file.parent, kept):
            print(f"{found}: what it holds now is graded", file=sys.stderr)
        before = read_predictions(file)
        answer_type = options.answer_type or _setting(file, options.benchmark, "answer_type")
        if not answer_type:
            raise InputError(f"{file}: whose answers are these? Set --benchmark or --answer-type.")
        places = [f"{file}, row {p.id}" for p in before]
        check_references(answer_type, [p.reference for p in before], places)
        after = before
        if options.run_programs and _setting(file, options.benchmark, "answered_by") == "tests":
            raise InputError(
                f"{file}: its programs were run with tests, which are not in it: evaluate again, or leave "
                "out --run-programs."
            )
        if options.run_programs:
            runs = run_programs([p.response for p in before], confined=not options.unconfined)
            after = [dataclasses.replace(p, program=ran) for p, ran in zip(before, runs, strict=True)]
        after = graded(after, answer_type)
        _print(file, before, after)
        if options.out:
            out = epath.Path(options.out)
            where = out / file.relative_to(path).as_posix() if path.is_dir() else out
            if where == file:
                raise InputError(f"--out={where} would replace what is graded: name another place.")
            write_predictions(where, after)


def _setting(file: epath.Path, name: str, key: str) -> str:
    """A field of the benchmark whose answers a file has: of the one named, or else that of its folder."""
    if not name and (record := file.parent / "stage.json").exists():
        return artifacts.read_json(record)["settings"].get(key, "")
    if not name and file.parent.name in BENCHMARKS:
        name = file.parent.name
    return getattr(BENCHMARKS.find(name), key) if name else ""


def _print(file: epath.Path, before: Sequence[Prediction], after: Sequence[Prediction]) -> None:
    found = summarise(after)
    low, high = (100 * end for end in found["interval"])
    verdicts = [p.correct for p in before if p.correct is not None]
    was = f", {100 * sum(verdicts) / len(verdicts):.1f} % before" if verdicts else ""
    accuracy = 100 * found["accuracy"]
    print(f"{file}: {accuracy:.1f} % ({low:.1f} to {high:.1f}) of {len(after):,} rows{was}")
    changed = [a for b, a in zip(before, after, strict=True) if b.correct not in (None, a.correct)]
    if changed:
        print(f"  {len(changed)} verdicts changed, such as:")
    for now in changed[:_SHOWN]:
        verdict = "right" if now.correct else "wrong"
        print(f"  row {now.id}: {now.answer!r} for {now.expected!r} is {verdict} now: {now.reason}")


if __name__ == "__main__":
    sys.exit(main())
