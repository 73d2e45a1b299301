"""Command lines: the flags of ``executor_main``, and those of an experiment."""

import enum
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from marin_trace import parse_flags
from marin_trace.cli.flags import ExecutorFlags, parse_executor_flags
from marin_trace.errors import FlagError
from tests.scripts import run_script, tree_of, write_script


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True)
class TrainFlags:
    minutes: float = 1.5
    """How long it trains."""
    bf16: bool = False


@dataclass(frozen=True)
class Flags:
    name: str = "tiny"
    shards: int = 4
    """How many files."""
    verbose: bool = False
    tags: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=lambda: [1])
    mode: Mode = Mode.FAST
    limit: int | None = None
    train: TrainFlags = field(default_factory=TrainFlags)


@dataclass(frozen=True)
class Required:
    source: str
    shards: int = 1


def flags(*argv: str) -> ExecutorFlags:
    return parse_executor_flags(argv)


def test_without_flags_everything_has_its_default() -> None:
    assert flags() == ExecutorFlags()
    assert flags().force_run_failed
    assert not flags().dry_run


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--dry_run"], True),
        (["--dry_run", "true"], True),
        (["--dry_run=True"], True),
        (["--dry_run=true"], True),
        (["--dry_run", "True"], True),
        (["--dry_run", "false"], False),
        (["--dry_run=False"], False),
        (["--dry_run", "--max_concurrent", "2"], True),
        (["--max_concurrent", "2", "--dry_run"], True),
    ],
)
def test_booleans_are_bare_or_have_a_value(argv: list[str], value: bool) -> None:
    assert flags(*argv).dry_run is value


def test_what_failed_is_not_tried_again_on_demand() -> None:
    assert flags("--force_run_failed", "false").force_run_failed is False
    assert flags("--force_run_failed=False").force_run_failed is False


@pytest.mark.parametrize("flag", ["run_only", "force", "force_from"])
@pytest.mark.parametrize(
    ("values", "patterns"),
    [
        (["a"], ["a"]),
        (["a", "--{}", "b"], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        (['["a", "b"]'], ["a", "b"]),
        (["['a', 'b']"], ["a", "b"]),
        (["[/]"], ["[/]"]),
        (["[abc]"], ["[abc]"]),
        (["[1, 2]"], ["[1, 2]"]),
        (["[]"], []),
        (['["a"]', "--{}", "b"], ["a", "b"]),
        (["^tokenize/.*$"], ["^tokenize/.*$"]),
        (["a, b"], ["a, b"]),
        (["true"], ["true"]),
        (["123"], ["123"]),
        (["a=b"], ["a=b"]),
        (["{x}: y # z"], ["{x}: y # z"]),
    ],
)
def test_patterns_repeat_or_come_as_a_json_list_of_strings(flag: str, values: list[str], patterns: list[str]) -> None:
    assert (
        getattr(flags(f"--{flag}", *(value.format(flag) if "--" in value else value for value in values)), flag)
        == patterns
    )


def test_a_pattern_may_begin_with_a_dash_after_an_equals_sign() -> None:
    assert flags("--force=--x").force == ["--x"]


def test_null_unsets_an_optional_text() -> None:
    assert flags("--description", "null").description is None
    assert parse_flags(Flags, argv=["--name", "null"]).name == "null"


def test_every_flag_is_read() -> None:
    argv = [
        "--prefix",
        "memory://x",
        "--dry_run",
        "--run_only",
        "a",
        "--force",
        "b",
        "--force_from",
        "c",
        "--force_run_failed",
        "false",
    ]
    argv += [
        "--max_concurrent",
        "3",
        "--max_jobs",
        "1000",
        "--executor_info_base_path",
        "/r",
        "--cluster",
        "local",
        "--lease_seconds",
        "60",
    ]
    assert flags(*argv, "--description", "two words") == ExecutorFlags(
        prefix="memory://x",
        dry_run=True,
        run_only=["a"],
        force=["b"],
        force_from=["c"],
        force_run_failed=False,
        max_concurrent=3,
        max_jobs=1000,
        executor_info_base_path="/r",
        cluster="local",
        lease_seconds=60.0,
        description="two words",
    )


@pytest.mark.parametrize("text", ["1: 2", "nil", "[a, b]", "true", "007", "", "a # b", "- x", "'quoted'"])
def test_text_is_taken_as_it_is(text: str) -> None:
    assert flags("--description", text).description == text
    assert flags(f"--description={text}").description == text
    assert parse_flags(Flags, argv=["--name", text]).name == text


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("--dryrun", "--dry_run"),
        ("--dry-run", "--dry_run"),
        ("--forc_from", "--force_from"),
        ("--run-only", "--run_only"),
        ("--max_concurent", "--max_concurrent"),
    ],
)
def test_an_unknown_flag_names_the_nearest(given: str, nearest: str) -> None:
    with pytest.raises(FlagError, match=rf"(?s)there is no flag {given}.*did you mean {nearest}\?"):
        flags(given)


def test_an_unknown_flag_that_is_near_none_lists_them() -> None:
    with pytest.raises(FlagError, match=r"(?s)there is no flag --zzzzz.*--prefix.*--dry_run"):
        flags("--zzzzz")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stray"], r"'stray' is no flag"),
        (["-x"], r"'-x' is no flag"),
        (["--prefix"], r"--prefix needs a value"),
        (["--prefix", "a", "--prefix", "b"], r"--prefix was given 2 values: a b"),
        (["--prefix", "a", "b"], r"--prefix was given 2 values"),
        (["--max_concurrent", "many"], r"--max_concurrent does not take 'many': it is int \| None"),
        (["--lease_seconds", "soon"], r"(?s)lease_seconds.*soon"),
        (["--dry_run", "perhaps"], r"--dry_run does not take 'perhaps': it is bool"),
        (["--max_concurrent", "0"], r"(?s)max_concurrent.*0"),
        (["--max_jobs", "0"], r"--max_jobs does not fit: 0 is less than 1"),
        (["--max_jobs", "all"], r"--max_jobs does not take 'all': it is int"),
        (["--lease_seconds=-1"], r"(?s)lease_seconds.*-1"),
    ],
)
def test_a_command_line_that_cannot_be_understood_says_why(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        flags(*argv)


def test_an_experiment_has_flags_of_its_own() -> None:
    argv = [
        "--name",
        "big",
        "--shards",
        "2",
        "--verbose",
        "--tags",
        "a",
        "--tags",
        "b",
        "--sizes",
        "[1,2]",
        "--mode",
        "SLOW",
        "--limit",
        "7",
    ]
    assert parse_flags(Flags, argv=argv) == Flags("big", 2, True, ["a", "b"], [1, 2], Mode.SLOW, 7, TrainFlags())


def test_nested_dataclasses_have_dotted_flags() -> None:
    parsed = parse_flags(Flags, argv=["--train.minutes", "20", "--train.bf16"])
    assert parsed.train == TrainFlags(20.0, bf16=True)
    with pytest.raises(FlagError, match=r"(?s)no flag --train\.minute.*did you mean --train\.minutes\?"):
        parse_flags(Flags, argv=["--train.minute", "1"])


def test_the_flags_of_executor_main_are_let_through() -> None:
    assert parse_flags(Flags, argv=["--dry_run", "--shards", "2", "--force", "a", "b", "--prefix=x"]).shards == 2


def test_a_required_flag_must_be_given() -> None:
    assert parse_flags(Required, argv=["--source", "x"]) == Required("x")
    with pytest.raises(FlagError, match="source"):
        parse_flags(Required, argv=[])


def test_a_value_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(FlagError, match="--shards does not take 'many': it is int"):
        parse_flags(Flags, argv=["--shards", "many"])


def test_a_field_named_like_a_flag_of_executor_main_is_an_error() -> None:
    @dataclass
    class Clash:
        prefix: str = ""

    with pytest.raises(FlagError, match=r"Clash\.prefix is named like a flag of executor_main"):
        parse_flags(Clash, argv=[])


def test_own_flags_are_taken_out_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--shards", "2", "--dry_run", "--force", "a", "b", "--verbose"])
    assert parse_flags(Flags) == Flags(shards=2, verbose=True)
    assert sys.argv == ["x.py", "--dry_run", "--force", "a", "b"]


def test_given_arguments_leave_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--shards", "2"])
    parse_flags(Flags, argv=["--shards", "3"])
    assert sys.argv == ["x.py", "--shards", "2"]


def test_a_mistake_ends_the_process_with_2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--shard", "2"])
    with pytest.raises(SystemExit, match="2"):
        parse_flags(Flags)
    assert "did you mean --shards?" in capsys.readouterr().err


SCRIPT = '''
from dataclasses import dataclass

from marin_trace import deferred, executor_main, output, parse_flags, step


@dataclass
class Flags:
    words: int = 1
    """How many words."""


def write(path: str, words: int) -> int:
    return words


@step(name="hello")
def hello(words: int):
    return deferred(write)(output(), words)


if __name__ == "__main__":
    executor_main(steps=[hello(parse_flags(Flags).words)])
'''


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return write_script(tmp_path / "code", SCRIPT)


def test_help_shows_both_sets_and_runs_nothing(script: Path, prefix: str) -> None:
    done = run_script(script, "--help", prefix=prefix)
    assert done.returncode == 0
    assert re.search(r"--words int +How many words\. \(default: 1\)", done.stdout)
    assert re.search(r"--dry_run bool +Show what would happen, and why; writes nothing\.", done.stdout)
    assert "experiment.py" in done.stdout
    assert tree_of(prefix) == {}


@pytest.mark.parametrize(
    "argv", [["--word", "2"], ["--dryrun"], ["--words", "x"], ["--force", "zzz"], ["--force", "("]]
)
def test_a_wrong_command_line_ends_with_2_and_writes_nothing(argv: list[str], script: Path, prefix: str) -> None:
    done = run_script(script, *argv, prefix=prefix)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("FlagError: ")
    assert "Traceback" not in done.stderr
    assert tree_of(prefix) == {}


def test_a_run_that_goes_well_ends_with_0(script: Path, prefix: str) -> None:
    assert run_script(script, "--words", 2, "--dry_run=true", prefix=prefix).returncode == 0
    assert tree_of(prefix) == {}
    assert run_script(script, "--words", 2, prefix=prefix).returncode == 0
    assert tree_of(prefix) != {}
