"""Laws of the poller: one thread, batches, and an engine that may be silent for a while."""

import gc
import queue
import threading
from collections.abc import Mapping, Sequence

import pytest

from marin_trace.workers.client import JobStatus
from marin_trace.workers.polling import JobPoller

PATIENCE_S = 30.0


class Job:
    """Notes what it learns."""

    def __init__(self) -> None:
        self.learnt: queue.Queue[JobStatus] = queue.Queue()

    def learn(self, status: JobStatus) -> bool:
        self.learnt.put(status)
        return status.is_over

    def next(self) -> JobStatus:
        return self.learnt.get(timeout=PATIENCE_S)


class Engine:
    """Answers what the test has put in, and notes each question."""

    def __init__(self, *answers: Mapping[str, JobStatus] | Exception) -> None:
        self.answers = list(answers)
        self.questions: list[list[str]] = []
        self.exhausted = threading.Event()

    def look(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        self.questions.append(sorted(job_ids))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if len(self.answers) == 1:
            self.exhausted.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_job_is_asked_about_until_it_is_over() -> None:
    engine, job = Engine({"a": JobStatus.PENDING}, {"a": JobStatus.RUNNING}, {"a": JobStatus.FAILED}), Job()
    poller = JobPoller("engine", engine.look)
    poller.watch("a", job)
    assert [job.next() for _ in range(3)] == [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.FAILED]
    questions = len(engine.questions)
    other = Job()
    poller.watch("b", other)
    engine.answers = [{"a": JobStatus.RUNNING, "b": JobStatus.SUCCEEDED}]
    assert other.next() is JobStatus.SUCCEEDED
    assert all("a" not in asked for asked in engine.questions[questions:])


def test_many_jobs_are_one_question() -> None:
    ids = [str(number) for number in range(100)]
    gate = threading.Event()
    questions: list[int] = []

    def look(job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        questions.append(len(job_ids))
        gate.wait(PATIENCE_S)
        return dict.fromkeys(job_ids, JobStatus.SUCCEEDED)

    jobs = [Job() for _ in ids]
    poller = JobPoller("engine", look)
    for id_, job in zip(ids, jobs, strict=True):
        poller.watch(id_, job)
    gate.set()
    assert {job.next() for job in jobs} == {JobStatus.SUCCEEDED}
    assert len(questions) <= 3
    assert sum(questions) == 100


def test_a_silent_engine_is_said_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(OSError("refused"), OSError("refused"), {"a": JobStatus.SUCCEEDED})
    job = Job()
    JobPoller("engine", engine.look).watch("a", job)
    assert job.next() is JobStatus.SUCCEEDED
    assert len(engine.questions) == 3
    assert [record.message for record in caplog.records] == [
        "engine does not tell about 1 jobs, and is asked again: refused"
    ]


def test_a_silence_that_lasts_is_said_again_and_its_end_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("marin_trace.workers.polling._REMINDER_S", 0.0)
    job = Job()
    JobPoller("engine", Engine(OSError("refused"), OSError("refused"), {"a": JobStatus.FAILED}).look).watch("a", job)
    assert job.next() is JobStatus.FAILED
    assert [record.message for record in caplog.records][1:] == [
        "engine has not told about 1 jobs for 0 s, whatever became of them: refused",
        "engine tells about jobs again, after 0 s",
    ]


class Touchy(Job):
    """Raises when it learns that it is over."""

    def learn(self, status: JobStatus) -> bool:
        super().learn(status)
        raise LookupError("in a callback")


def test_what_a_job_does_with_its_status_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    touchy, calm = Touchy(), Job()
    poller = JobPoller("engine", Engine({"a": JobStatus.SUCCEEDED, "b": JobStatus.SUCCEEDED}).look)
    poller.watch("a", touchy)
    poller.watch("b", calm)
    assert (touchy.next(), calm.next()) == (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED)
    assert "in a callback" in caplog.text


def test_a_job_that_nobody_holds_is_not_asked_about() -> None:
    engine = Engine({"a": JobStatus.RUNNING, "b": JobStatus.RUNNING})
    poller = JobPoller("engine", engine.look)
    job, other = Job(), Job()
    poller.watch("a", job)
    poller.watch("b", other)
    assert (job.next(), other.next()) == (JobStatus.RUNNING, JobStatus.RUNNING)
    del job
    gc.collect()
    poller.hurry("b")
    engine.questions.clear()
    while not any(asked == ["b"] for asked in engine.questions):
        poller.hurry("b")
        other.next()
