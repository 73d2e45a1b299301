"""Laws of printing: what others have stored is shown as text, whole, and no terminal obeys it."""

import json

import pytest

from marin_trace.cli import tables

HOSTILE = "a\x1b[2Jb\rc\u202ed\x9b1m\x07\ttab\nline"


def pretend(is_terminal: bool, monkeypatch: pytest.MonkeyPatch, *, columns: int = 200) -> None:
    """Lets what is printed from here on go to a terminal of that width, or not."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    # A dumb one, so that what is printed holds no escapes of our own.
    for name, value in (("TERM", "dumb"), ("COLUMNS", columns), ("LINES", 50)):
        monkeypatch.setenv(name, str(value))


WHERE = pytest.mark.parametrize("is_terminal", [True, False])


@WHERE
def test_rows_facts_and_lines_hold_no_escapes(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(is_terminal, monkeypatch)
    tables.print_rows([{"step": HOSTILE, "n": 1}], ("step", "n"), as_json=False)
    tables.print_facts({"label": HOSTILE})
    tables.print_line(HOSTILE)
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 4
    assert all(line.isprintable() for line in out.splitlines())
    assert out.count(r"a\x1b[2Jb\rc\u202ed\x9b1m\x07\ttab\nline") == 3


def test_json_is_ascii_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_json({"text": HOSTILE})
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(line.isprintable() for line in out.splitlines())
    assert json.loads(out) == {"text": HOSTILE}


@WHERE
def test_logs_are_text_on_a_terminal_and_themselves_in_a_pipe(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(is_terminal, monkeypatch)
    tables.print_text("10 %\r20 %\r\n\x1b[31mred\tend")
    out = capsys.readouterr().out
    assert out == ("10 %\n20 %\n\\x1b[31mred\tend" if is_terminal else "10 %\r20 %\r\n\x1b[31mred\tend")


def test_a_narrow_terminal_breaks_no_id(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(True, monkeypatch, columns=50)
    rows = [{"run": "20261122-193809-d8af99", "steps": "98 hit, 98 failed, 1 skipped"}]
    tables.print_rows(rows, ("run", "steps"), as_json=False, unbroken=("run",))
    assert "20261122-193809-d8af99  98 hit, 98 failed" in capsys.readouterr().out
