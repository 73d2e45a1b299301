"""Laws of ``marin-trace lint`` and ``marin-trace migrate`` as commands: output, exit codes, and what they write."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from marin_trace.cli.main import main
from marin_trace.migration.lint import CODES
from marin_trace.migration.names import REPORT_FORMATS
from marin_trace.migration.reports import REPORTS

BAD = "from experiments.defaults import default_train\n\nmodel = default_train('50%,\\n')\n"
CLEAN = "from marin_trace import step\n\n\n@step\ndef raw(): ...\n"

OLD = """\
from marin.execution.executor import ExecutorStep, this_output_path
from marin.lib import Config, work

raw = ExecutorStep(name="raw", fn=work, config=Config(out=this_output_path()))
"""


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "experiments" / "bad, 1.py"
    path.parent.mkdir()
    path.write_text(BAD)
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in argv])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_text_names_place_code_message_and_fix(capsys: pytest.CaptureFixture[str], bad: Path) -> None:
    code, out, _ = run(capsys, "lint", bad)
    assert code == 1
    first, fix, count, explain = out.splitlines()
    assert first == f"{bad}:3:9: MT003 default_train(...) makes a step when the module is imported"
    assert fix.startswith("    write: call it in the body of an entry step")
    assert count == "found 1 in 1 file: 1 x MT003"
    assert explain.endswith("marin-trace lint --explain MT003")


def test_a_clean_file_is_told_to_be_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "exp.py").write_text(CLEAN)
    assert run(capsys, "lint", tmp_path)[:2] == (0, "nothing found\n")
    assert run(capsys, "lint", tmp_path, "--json")[:2] == (0, "[]\n")
    assert run(capsys, "lint", tmp_path, "--format", "github")[:2] == (0, "")


def test_json_has_every_field(capsys: pytest.CaptureFixture[str], bad: Path) -> None:
    code, out, _ = run(capsys, "lint", bad, "--format", "json")
    assert code == 1
    assert run(capsys, "lint", bad, "--json")[1] == out
    [finding] = json.loads(out)
    places = {"path": str(bad), "line": 3, "column": 9, "end_line": 3, "end_column": 32, "code": "MT003"}
    assert {key: finding[key] for key in places} == places
    assert finding.keys() == places.keys() | {"message", "fix"}


def test_github_escapes_what_its_commands_would_read(capsys: pytest.CaptureFixture[str], bad: Path) -> None:
    _, out, _ = run(capsys, "lint", bad, "--format", "github")
    [line] = out.splitlines()
    assert re.match(r"::error file=[^,:]+bad%2C 1\.py,line=3,col=9,endLine=3,title=MT003::MT003 default_train", line)


def test_sarif_is_what_its_readers_take(capsys: pytest.CaptureFixture[str], bad: Path) -> None:
    _, out, _ = run(capsys, "lint", bad, "--format", "sarif")
    log: dict[str, Any] = json.loads(out)
    assert log["version"] == "2.1.0"
    [run_of_lint] = log["runs"]
    rules = run_of_lint["tool"]["driver"]["rules"]
    assert {rule["id"] for rule in rules} == CODES
    [result] = run_of_lint["results"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "MT003"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == bad.as_uri()
    assert place["region"] == {"startLine": 3, "startColumn": 9, "endLine": 3, "endColumn": 32}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--select", "MT003"], True),
        (["--select", "MT00"], True),
        (["--select", "mt004,MT005"], False),
        (["--ignore", "MT003"], False),
        (["--select", "MT", "--ignore", "MT001 MT003"], False),
    ],
)
def test_codes_are_selected_by_their_beginnings(
    capsys: pytest.CaptureFixture[str], bad: Path, flags: list[str], found: bool
) -> None:
    assert run(capsys, "lint", bad, *flags)[0] == int(found)


def test_every_report_is_offered() -> None:
    assert tuple(sorted(REPORTS)) == REPORT_FORMATS


def test_a_code_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "lint", "--explain", "mt003")
    assert code == 0
    assert out.startswith("MT003 step-at-import: a step is called when the module is imported\n")
    assert "# noqa: MT003" in out
    assert run(capsys, "lint", "--explain", "step-at-import")[1] == out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lint"], "lint was given no file and no directory"),
        (["lint", "nowhere"], "nowhere is neither a file nor a directory"),
        (["migrate", "nowhere"], "nowhere is neither a file nor a directory"),
        (["lint", ".", "--select", "E501"], r"there is no rule 'E501'\n  rules: MT000 to MT016"),
        (["lint", "--explain", "MT999"], r"there is no rule 'MT999'\n  MT001  output-path-default"),
    ],
)
def test_a_command_line_that_says_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert re.search(message, err)


@pytest.mark.parametrize("argv", [["lint", ".", "--format", "xml"], ["migrate"], ["migrate", ".", "--diff", "--write"]])
def test_flags_that_do_not_exist_or_exclude_each_other_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)


def test_a_syntax_error_is_found_as_such(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    path.write_text("def f(:\n")
    for command in ("lint", "migrate"):
        code, out, err = run(capsys, command, path)
        assert code == 1
        assert "exp.py:1" in out + err
        assert "MT000 cannot be read as Python: " in out + err
    assert path.read_text() == "def f(:\n"


def test_migrate_shows_a_difference_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    path.write_text(OLD)
    code, out, err = run(capsys, "migrate", path)
    assert code == 0
    assert "\n-raw = ExecutorStep(" in out
    assert '\n+@step(name="raw")\n+def raw() -> StepRef:\n' in out
    assert err == "1 of 1 file would be rewritten\n"
    assert path.read_text() == OLD
    assert run(capsys, "migrate", path, "--diff") == (code, out, err)


def test_migrate_writes_where_it_is_told_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    path.write_text(OLD)
    assert run(capsys, "migrate", tmp_path, "--write") == (0, "", "1 of 1 file rewritten\n")
    assert "def raw() -> StepRef:\n    return work(Config(out=output()))" in path.read_text()
    assert run(capsys, "lint", tmp_path)[0] == 0
    written = path.stat().st_mtime_ns
    assert run(capsys, "migrate", tmp_path, "--write") == (0, "", "0 of 1 file rewritten\n")
    assert path.stat().st_mtime_ns == written


def test_migrate_lists_what_it_leaves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    path.write_text(OLD.replace("fn=work", "fn=lambda config: None"))
    code, _, err = run(capsys, "migrate", path, "--write")
    assert code == 1
    assert re.search(r"left as it was, \d places:\n", err)
    assert re.search(
        r"exp\.py:\d+: MT005 step 'raw' is made by the constructor ExecutorStep: its function is a lambda, ", err
    )
    assert "# MT005: step 'raw' is made by the constructor ExecutorStep: its function is a lambda, " in path.read_text()


def test_migrate_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    path.write_text(OLD)
    code, out, _ = run(capsys, "migrate", path, "--json")
    assert code == 0
    [file] = json.loads(out)
    assert file["path"] == str(path)
    assert file["changed"]
    assert file["left"] == []
    assert "@step" in file["text"]
    assert path.read_text() == OLD


def test_without_libcst_migrate_says_what_to_install(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run(capsys, "migrate", tmp_path)
    assert code == 2
    assert "migrate needs libcst, which is not installed" in err
    assert "hint: pip install 'marin-trace[migrate]'" in err
