"""Laws of following: every byte once, in order, until the attempt is decided; with a scripted store, and no clock."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from marin_trace.planning.attempt_output import LogText, follow
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, FailurePhase, StepFailure
from marin_trace.runtime.status import StatusKind, StepStatus
from marin_trace.storage.control_store import ControlStore, control_store_for
from tests.storage.clouds import gcs_cloud

AT = "2026-01-31T12:00:00+00:00"


class EndlessError(AssertionError):
    """Nothing was left to happen, and it was still waited for."""


@dataclass
class Scene:
    """An output, and what happens to it between two looks."""

    log: AttemptLog
    acts: list[Callable[[], object]] = field(default_factory=list)
    written: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def store(self) -> ControlStore:
        return control_store_for(self.log.output_path)

    def claim(self, epoch: int) -> None:
        claim = ClaimRecord(epoch, f"n{epoch}", "far-away", 7, "p", 120.0, AT)
        self.store.put(self.log.claim(epoch), claim.to_bytes())

    def end(self, epoch: int, kind: EndKind = EndKind.SUCCESS, error: str | None = None) -> None:
        failure = None if error is None else StepFailure("ValueError", error, FailurePhase.BODY)
        self.store.put(self.log.end(epoch), EndRecord(epoch, kind, f"n{epoch}", AT, error=failure).to_bytes())

    def write(self, epoch: int, text: str | bytes, suffix: str = "") -> None:
        path = f"{self.log.directory}/{epoch:06d}.log{suffix}"
        content = text if isinstance(text, bytes) else text.encode()
        self.written[path] = self.written.get(path, b"") + content
        self.store.put(path, self.written[path])

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        if not self.acts:
            raise EndlessError
        self.acts.pop(0)()

    def followed(self, epoch: int = 1, *, is_pinned: bool = False) -> tuple[list[LogText], StepStatus]:
        pieces: list[LogText] = []
        source = follow(self.log.output_path, epoch, is_pinned=is_pinned, sleep=self.sleep)
        while True:
            try:
                pieces.append(next(source))
            except StopIteration as end:
                return pieces, end.value


@pytest.fixture(params=["disk", "memory", "cloud"])
def scene(request: pytest.FixtureRequest, prefix: str) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        prefixes = {"disk": prefix, "memory": f"memory://{prefix}"}
        where = prefixes.get(request.param) or stack.enter_context(gcs_cloud()).bucket
        found = Scene(AttemptLog(f"{where}/step-0123abcd"))
        found.claim(1)
        yield found


def texts(pieces: list[LogText]) -> list[str]:
    return [piece.text for piece in pieces]


def test_what_comes_while_it_runs_is_given_once_and_in_order(scene: Scene) -> None:
    scene.acts = [
        lambda: scene.write(1, "one\n"),
        lambda: None,
        lambda: scene.write(1, "two"),
        lambda: (scene.write(1, " and three\n"), scene.end(1)),
    ]
    pieces, status = scene.followed()
    assert texts(pieces) == ["one\n", "two", " and three\n"]
    assert status.kind is StatusKind.SUCCESS


def test_an_attempt_that_is_decided_is_given_whole(scene: Scene) -> None:
    scene.write(1, "all\nof it")
    scene.end(1, EndKind.FAILED, "no")
    pieces, status = scene.followed()
    assert (texts(pieces), status.kind) == (["all\nof it"], StatusKind.FAILED)


def test_a_log_that_appears_with_the_end_is_given(scene: Scene) -> None:
    scene.acts = [lambda: None, lambda: (scene.write(1, "late\n"), scene.end(1))]
    assert texts(scene.followed()[0]) == ["late\n"]


def test_one_that_is_tried_again_is_followed_into_the_next(scene: Scene) -> None:
    scene.write(1, "first\n")
    scene.acts = [
        lambda: scene.end(1, EndKind.RELEASED, "again"),
        lambda: None,
        lambda: (scene.claim(2), scene.write(2, "second\n")),
        lambda: scene.end(2),
    ]
    pieces, status = scene.followed()
    assert [(piece.epoch, piece.text) for piece in pieces] == [(1, "first\n"), (2, "second\n")]
    assert (status.epoch, status.kind) == (2, StatusKind.SUCCESS)


def test_a_retry_that_never_comes_is_not_waited_for_for_ever(scene: Scene) -> None:
    scene.end(1, EndKind.RELEASED, "again")
    scene.acts = [lambda: None] * 20
    assert scene.followed()[1].kind is StatusKind.RELEASED
    assert scene.acts


@pytest.mark.parametrize("kind", [EndKind.RELEASED, EndKind.FENCED])
def test_one_that_was_given_up_is_over(scene: Scene, kind: EndKind) -> None:
    scene.end(1, kind)
    assert scene.followed()[1].kind.value == kind.value


def test_a_chosen_attempt_is_not_followed_into_the_next(scene: Scene) -> None:
    scene.write(1, "first\n")
    scene.end(1, EndKind.RELEASED, "again")
    scene.claim(2)
    pieces, status = scene.followed(1, is_pinned=True)
    assert (texts(pieces), status.epoch) == (["first\n"], 2)


def test_processes_of_a_gang_give_whole_lines_each(scene: Scene) -> None:
    scene.acts = [
        lambda: (scene.write(1, "zero a\nzero"), scene.write(1, "one a\n", "-1"), scene.write(1, "eleven\n", "-11")),
        lambda: scene.write(1, " b\n"),
        lambda: (scene.write(1, "one b", "-1"), scene.end(1)),
    ]
    pieces, _ = scene.followed()
    assert [(piece.rank, piece.text) for piece in pieces] == [
        (0, "zero a\n"),
        (1, "one a\n"),
        (11, "eleven\n"),
        (0, "zero b\n"),
        (1, "one b"),
    ]
    assert all(piece.is_gang for piece in pieces)


@pytest.mark.parametrize("character", ["é", "→", "🦙"])
def test_a_character_is_never_cut(scene: Scene, character: str) -> None:
    encoded = f"a{character}b\n".encode()
    scene.acts = [*(lambda byte=byte: scene.write(1, bytes([byte])) for byte in encoded), lambda: scene.end(1)]
    pieces, _ = scene.followed()
    assert "".join(texts(pieces)) == f"a{character}b\n"
    assert "\ufffd" not in "".join(texts(pieces))


def test_bytes_that_are_no_text_are_shown_all_the_same(scene: Scene) -> None:
    scene.acts = [lambda: scene.write(1, b"\xff\x80\n"), lambda: scene.write(1, b"ok\n"), lambda: scene.end(1)]
    assert "".join(texts(scene.followed()[0])).endswith("\nok\n")
