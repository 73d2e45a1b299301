"""Laws of records: what is written down, what never is, and how two recipes differ."""

import json
import subprocess
from pathlib import Path

import pytest

from marin_trace.errors import ControlFileError
from marin_trace.runtime.provenance import Provenance, current_provenance
from marin_trace.runtime.records import (
    FieldChange,
    StepRecord,
    field_differences,
    new_run_id,
    read_step_info,
    write_run_record,
    write_step_info,
)
from marin_trace.runtime.redaction import redact, redact_arguments, redact_parts
from marin_trace.runtime.run_history import list_runs, read_runs
from marin_trace.safe_text import REDACTED, redact_text
from marin_trace.storage.bounded import LARGEST_CONTROL_FILE


def test_step_info_holds_the_recipe_and_where_it_comes_from(tmp_path: Path) -> None:
    record = StepRecord(
        "tok/a", "f" * 64, {"config.n": "1", "config.api_key": "'k'"}, ("lib:tok",), {"hf_token": "s"}, ("/in",)
    )
    write_step_info(str(tmp_path), record, provenance=None, epoch=3)
    info = read_step_info(str(tmp_path))
    assert info is not None
    assert (info["executor_version"], info["name"], info["epoch"]) == ("step_runner", "tok/a", 3)
    assert info["parts"] == {"config.n": "1", "config.api_key": REDACTED}
    assert info["config"] == {"hf_token": REDACTED}
    assert info["provenance"]["packages"]["fsspec"]
    assert info["provenance"]["host"] == current_provenance().host


def test_no_info_is_none_and_a_corrupt_one_is_named(tmp_path: Path) -> None:
    assert read_step_info(str(tmp_path)) is None
    for content in ("{", "[]"):
        (tmp_path / ".executor_info").write_text(content)
        with pytest.raises(ControlFileError, match=rf"{tmp_path}/\.executor_info"):
            read_step_info(str(tmp_path))


def test_differences_name_what_changed_came_and_went() -> None:
    changes = field_differences({"a": "1", "b": "2", "gone": "3"}, {"new": "4", "a": "1", "b": "5"})
    assert changes == [FieldChange("new", None, "4"), FieldChange("b", "2", "5"), FieldChange("gone", "3", None)]
    assert [str(change) for change in changes] == ["new: added 4", "b: 2 → 5", "gone: removed 3"]


def test_a_run_record_is_written_once(tmp_path: Path) -> None:
    path = write_run_record(str(tmp_path), "run", {"password": "s", "steps": []})
    assert json.loads(Path(path).read_text()) == {"password": REDACTED, "steps": []}
    with pytest.raises(ControlFileError, match="the record of run run exists already"):
        write_run_record(str(tmp_path), "run", {})


def test_the_record_of_a_run_of_many_thousand_steps_is_read_back(tmp_path: Path) -> None:
    steps = [{"name": f"step-{number}", "error": "x" * 1_000} for number in range(20_000)]
    write_run_record(str(tmp_path), "run", {"steps": steps})
    assert (tmp_path / "run.json").stat().st_size > LARGEST_CONTROL_FILE
    (record,) = read_runs(list_runs(str(tmp_path)))
    assert record is not None
    assert len(record["steps"]) == 20_000


def test_run_ids_are_unique() -> None:
    assert len({new_run_id() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "name", ["hf_token", "HF-TOKEN", "api_key", "password", "secret", "authorization", "--api-key"]
)
def test_a_secret_name_hides_its_value(name: str) -> None:
    assert redact({name: "s3cr3t", "nested": [{name: ["s3cr3t"]}]}) == {name: REDACTED, "nested": [{name: REDACTED}]}


@pytest.mark.parametrize("name", ["tokenizer", "eos_token", "token_count", "secretary", "keys", "num_tokens"])
def test_a_name_that_merely_contains_one_hides_nothing(name: str) -> None:
    assert redact({name: "gpt2"}) == {name: "gpt2"}


def test_numbers_under_a_secret_name_are_no_secrets() -> None:
    assert redact({"token": 50256, "password": None}) == {"token": 50256, "password": None}
    assert redact_parts({"config.token": "50256", "config.x.token": "'t'"}) == {
        "config.token": "50256",
        "config.x.token": REDACTED,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host/x", f"https://{REDACTED}@host/x"),
        ("see s3://AKIA:xyz@bucket/k and more", f"see s3://{REDACTED}@bucket/k and more"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", f"https://h/x?a=1&X-Amz-Signature={REDACTED}&b=2"),
        ("https://h/x?sig=abc", f"https://h/x?sig={REDACTED}"),
        ("mail me@host", "mail me@host"),
        ("gs://bucket/a@b", "gs://bucket/a@b"),
    ],
)
def test_urls_lose_credentials_and_signatures(text: str, shown: str) -> None:
    assert redact_text(text) == shown


def test_a_command_line_keeps_its_flags() -> None:
    given = ["run.py", "--hf_token", "s", "--cfg.api-key=s", "--tokenizer", "t", "--secret", "--flag", "https://u:p@h/"]
    assert redact_arguments(given) == [
        *("run.py", "--hf_token", REDACTED, f"--cfg.api-key={REDACTED}", "--tokenizer", "t", "--secret", "--flag"),
        f"https://{REDACTED}@h/",
    ]


def test_provenance_knows_the_commit_and_whether_it_is_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    def look() -> Provenance:
        current_provenance.cache_clear()
        return current_provenance()

    monkeypatch.chdir(tmp_path)
    assert look().git_commit is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    assert (look().git_commit, look().git_dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("2")
    assert look().git_dirty
    current_provenance.cache_clear()


def test_provenance_is_json() -> None:
    facts = current_provenance().to_json()
    assert json.loads(json.dumps(facts))["python"].count(".") == 2
    assert facts["packages"]["pydantic"]
