"""What is said to a terminal cannot steer it, wherever the text came from."""

import logging as std_logging
import threading

import pytest
from absl import logging

from s2l_jax import console
from s2l_jax.errors import DivergedError, InputError

HOSTILE = [
    ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    ("\x9b31m red", r"\x9b31m red"),
    ("over\rwritten\x08\x7f", r"over\rwritten\x08\x7f"),
    ("file\u202egpj.exe", r"file\u202egpj.exe"),
    ("name\udcff", r"name\udcff"),
    ("\x00", r"\x00"),
]
PLAIN = "naïve → 日本語 👩\u200d🔬 50 %\n\tindented"


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
@pytest.mark.parametrize("kind", [InputError, DivergedError])
def test_errors(kind, text, shown):
    assert str(kind(f"row {text}: bad")) == f"row {shown}: bad"


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_lines(text, shown, capsys):
    console.say(text)
    progress = console.Progress(text, 3, "rows")
    progress.close()
    said = capsys.readouterr().err
    assert said.splitlines()[0] == shown
    assert said.splitlines()[1].startswith(f"{shown}: 0/3 rows")


def test_what_is_logged():
    console.log_harmlessly()
    record = std_logging.LogRecord("absl", logging.WARNING, __file__, 1, "%s: bad", ("\x1b[2J",), None)
    for accept in logging.get_absl_handler().filters:
        assert accept(record)
    assert logging.get_absl_handler().format(record).endswith(r"\x1b[2J: bad")


def test_other_text_stays_as_it_is():
    assert console.harmless(PLAIN) == PLAIN


def test_a_terminal_that_was_closed_is_no_failure(monkeypatch):
    class Closed:
        def write(self, text):
            raise OSError(5, "Input/output error")

        flush = isatty = lambda self: False

    monkeypatch.setattr("sys.stderr", Closed())
    console.say("nobody hears this")


def test_long_waits_are_told_of(monkeypatch):
    said, twice = [], threading.Event()

    def say(text):
        said.append(text)
        if len(said) == 2:
            twice.set()

    monkeypatch.setattr(console, "say", say)
    monkeypatch.setattr(console, "_LINE_EVERY", 0.001)
    with pytest.raises(ZeroDivisionError), console.waiting("sweeping"):  # noqa: PT012  it ends by any error
        assert twice.wait(60)
        _ = 1 / 0
    assert all(line.startswith("sweeping: ") and line.endswith(" s so far") for line in said)
    assert not [thread for thread in threading.enumerate() if thread.name == "waiting"]


def test_short_waits_are_not(capsys):
    with console.waiting("sweeping"):
        pass
    assert capsys.readouterr().err == ""
