"""Outputs of the older kind, adopted, in each kind of store."""

from pathlib import Path
from typing import Any

import pytest

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
from tests.storage.clouds import Cloud
from tests.storage.faults import Fault, lost_answer, status_after, status_before


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


def test_a_step_in_a_process_of_its_own_is_led_to_what_was_adopted(prefix: str, tmp_path: Path) -> None:
    executor_main(steps=[OLD], argv=[])
    left = resolve_executor_step(OLD, prefix=prefix).output_path
    [spec] = lower(words("other text"), prefix=prefix)
    adopt(adoption_of(spec.output_path, left, spec.fingerprint), spec.fingerprint)

    @step(name="apart", env_vars={"APART": "1"})
    def apart(source: Any) -> StepRef:
        return deferred(copy_path)(source, str(tmp_path / "seen"))

    executor_main(steps=[apart(words("other text"))], argv=[])
    assert Path(tmp_path, "seen").read_text() == left


def copy_path(path: str, to: str) -> None:
    Path(to).write_text(path)


CONTROL_WRITES = (".adopted", "000001.end", ".executor_status", ".executor_info", "000001.claim")


@pytest.mark.parametrize("fault", [lost_answer, status_after(503), status_before(503), status_before(429)])
def test_a_fault_at_each_write_changes_nothing_of_what_is_decided(cloud: Cloud, tmp_path: Path, fault: Fault) -> None:
    base = f"{cloud.bucket}{tmp_path}"
    executor_main(steps=[OLD], argv=["--prefix", base])
    left = resolve_executor_step(OLD, prefix=base).output_path
    [spec] = lower(words("other text"), prefix=base)
    planned = adoption_of(spec.output_path, left, spec.fingerprint)
    for name in CONTROL_WRITES:
        cloud.faults.hit(fault, where=lambda call, name=name: call.is_write and name in f"{call.path} {call.content}")
    assert adopt(planned, spec.fingerprint, spec.record()) is AdoptionKind.ADOPTED
    assert cloud.faults.pending == []
    status = read_status(spec.output_path)
    assert (status.kind, status.epoch, status.adopted_from) == (StatusKind.SUCCESS, 1, left)
    again = adoption_of(spec.output_path, left, spec.fingerprint)
    assert adopt(again, spec.fingerprint, spec.record()) is AdoptionKind.STANDS
