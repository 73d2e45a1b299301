"""Outputs of the older kind, adopted, in each kind of store."""

from pathlib import Path
from typing import Any

from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.executor import resolve_executor_step
from marin_trace.io import atomic_write
from marin_trace.legacy import ExecutorStep, this_output_path, versioned
from marin_trace.lowering.lower import lower
from marin_trace.planning.adoptable import outputs_of_older_steps, weighed
from marin_trace.runtime.adoption import AdoptionKind, adopt, adoption_of
from marin_trace.runtime.maintenance import CheckKind, check_output, collect_garbage
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.files import read_bytes, write_bytes


def write_words(config: dict[str, Any]) -> None:
    with atomic_write(f"{config['to']}/words.txt", "w") as stream:
        stream.write(config["words"])


def count_words(source: str) -> int:
    return len(read_bytes(source).split())


@step(name="raw/words")
def words(text: str) -> StepRef:
    return deferred(write_words)({"to": output(), "words": text})


@step(name="count")
def counted(source: Any) -> StepRef:
    return deferred(count_words)(source / "words.txt")


OLD = ExecutorStep("raw/words", write_words, {"to": this_output_path(), "words": versioned("a b c")})


def test_an_old_output_is_found_weighed_adopted_and_read(base: str) -> None:
    executor_main(steps=[OLD], argv=["--prefix", base])
    left = resolve_executor_step(OLD, prefix=base).output_path
    [spec] = lower(words("other text"), prefix=base)
    assert outputs_of_older_steps([spec], base) == {spec.output_path: (left,)}
    found = weighed(left, read_status(left))
    assert found.size == len("a b cnull")
    assert found.age_seconds is not None
    assert found.age_seconds < 600
    for kind in (AdoptionKind.ADOPTED, AdoptionKind.STANDS):
        assert adopt(adoption_of(spec.output_path, left, spec.fingerprint), spec.fingerprint, spec.record()) is kind
    reading = counted(words("other text"))
    run = executor_main(steps=[reading], argv=["--prefix", base])
    assert [outcome.kind for outcome in run.outcomes] == [OutcomeKind.HIT, OutcomeKind.SUCCEEDED]
    assert run.artifact(reading) == 3
    assert check_output(spec.output_path).kind is CheckKind.OK
    assert collect_garbage(left) == collect_garbage(spec.output_path) == []


def test_what_the_older_executor_left_has_an_age(base: str) -> None:
    write_bytes(f"{base}/old-1a2b3c/words.txt", b"a b")
    write_bytes(f"{base}/old-1a2b3c/.executor_status", b"SUCCESS")
    found = weighed(f"{base}/old-1a2b3c", read_status(f"{base}/old-1a2b3c"))
    assert read_status(found.output_path).kind is StatusKind.LEGACY_SUCCESS
    assert found.size == 3
    assert found.age_seconds is not None  # by the clock of the store
    assert found.age_seconds >= 0


def test_job_payloads_lead_to_what_was_adopted(base: str, tmp_path: Path) -> None:
    """A step in a process of its own has the paths of its inputs from the launcher."""
    executor_main(steps=[OLD], argv=["--prefix", base])
    left = resolve_executor_step(OLD, prefix=base).output_path
    [spec] = lower(words("other text"), prefix=base)
    adopt(adoption_of(spec.output_path, left, spec.fingerprint), spec.fingerprint)
    marker = tmp_path / "seen"
    if base.startswith("memory:"):  # a process of its own has a memory of its own
        return

    @step(name="apart", env_vars={"APART": "1"})
    def apart(source: Any) -> StepRef:
        return deferred(copy_path)(source, str(marker))

    executor_main(steps=[apart(words("other text"))], argv=["--prefix", base])
    assert marker.read_text() == left


def copy_path(path: str, to: str) -> None:
    Path(to).write_text(path)
