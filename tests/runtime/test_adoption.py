"""Laws of adoption: an output is bound to a recipe by a record that is there or not, and its data is left alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from marin_trace import StepSpec, executor_main
from marin_trace.errors import ArtifactError, LeaseLostError, MarinTraceError, RunError, StepAlreadyDone
from marin_trace.io import atomic_write
from marin_trace.runtime.adoption import AdoptionKind, adopt, adoption_of
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.maintenance import CheckKind, check_output, collect_garbage
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.records import StepRecord, read_step_info
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.control_store import control_store_for
from tests.scripts import tree_of

NEW, OLD = "f" * 64, "0" * 64


def put(path: str, text: str = "x") -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def build(output: str, fingerprint: str = OLD, **options: Any) -> None:
    recorded = AttemptOptions(record={"fingerprint": fingerprint}, **options)
    distributed_lock(lambda path: put(f"{path}/data.txt")).with_options(recorded).finishing(Artifact.save)(output)


def leave(output: str, token: str = "SUCCESS") -> None:
    """What an older system leaves."""
    put(f"{output}/data.txt")
    put(f"{output}/.executor_status", token)


def bind(output: str, source: str, fingerprint: str = NEW) -> AdoptionKind:
    return adopt(adoption_of(output, source, fingerprint), fingerprint, StepRecord("step", fingerprint))


def data_of(directory: str) -> dict[str, Any]:
    return {path: state for path, state in tree_of(directory).items() if not path.startswith(".executor")}


@pytest.fixture(params=["built here", "older system"])
def source(request: pytest.FixtureRequest, prefix: str) -> str:
    (build if request.param == "built here" else leave)(f"{prefix}/old")
    return f"{prefix}/old"


def test_what_is_adopted_is_finished_by_the_new_recipe_and_is_left_alone(prefix: str, source: str) -> None:
    before, status_before = data_of(source), read_status(source)
    assert bind(f"{prefix}/new", source) is AdoptionKind.ADOPTED
    status = read_status(f"{prefix}/new")
    assert (status.kind, status.fingerprint, status.adopted_from) == (StatusKind.SUCCESS, NEW, source)
    assert data_of(source) == before
    assert read_status(source) == status_before
    assert (read_step_info(f"{prefix}/new") or {})["fingerprint"] == NEW


def test_done_again_it_changes_nothing(prefix: str, source: str) -> None:
    bind(f"{prefix}/new", source)
    before = tree_of(prefix)
    assert bind(f"{prefix}/new", source) is AdoptionKind.STANDS
    assert tree_of(prefix) == before


def test_nobody_builds_what_is_adopted_unless_forced(prefix: str, source: str) -> None:
    bind(f"{prefix}/new", source)
    with pytest.raises(StepAlreadyDone):
        distributed_lock(put)(f"{prefix}/new")
    build(f"{prefix}/new", NEW, rerun_of=1)
    status = read_status(f"{prefix}/new")
    assert (status.epoch, status.adopted_from) == (2, None)
    assert Path(prefix, "new", "data.txt").exists()


def test_an_adopted_output_that_is_adopted_leads_to_the_first_one(prefix: str, source: str) -> None:
    bind(f"{prefix}/second", source)
    bind(f"{prefix}/third", f"{prefix}/second", OLD)
    assert read_status(f"{prefix}/third").adopted_from == source


def test_in_place_an_output_gets_another_recipe(prefix: str, source: str) -> None:
    data, info = data_of(source), read_step_info(source)
    assert bind(source, source) is AdoptionKind.ADOPTED
    assert bind(source, source) is AdoptionKind.STANDS
    assert bind(source, source, "a" * 64) is AdoptionKind.ADOPTED
    status = read_status(source)
    assert (status.fingerprint, status.adopted_from, status.adopted_epoch) == ("a" * 64, source, status.epoch - 2)
    assert data_of(source) == data
    assert read_step_info(source) == info


def test_the_artifact_of_an_adopted_output_is_found(prefix: str) -> None:
    distributed_lock(lambda path: {"loss": 0.5}).finishing(Artifact.save)(f"{prefix}/old")
    bind(f"{prefix}/new", f"{prefix}/old")
    assert Artifact.load(f"{prefix}/new") == {"loss": 0.5}


def test_verify_looks_at_the_data_that_was_adopted(prefix: str) -> None:
    build(f"{prefix}/old")
    leave(f"{prefix}/older")
    for name in ("old", "older"):
        bind(f"{prefix}/new/{name}", f"{prefix}/{name}")
        bind(f"{prefix}/{name}", f"{prefix}/{name}")
    found = {path: check_output(f"{prefix}/{path}") for path in ("old", "new/old", "older", "new/older")}
    assert [check.kind.value for check in found.values()] == ["ok", "ok", "unchecked", "unchecked"]
    assert found["new/old"].detail == f"adopted from {prefix}/old: 2 files"
    put(f"{prefix}/old/data.txt", "changed")
    for path in ("old", "new/old"):
        assert [change.path for change in check_output(f"{prefix}/{path}").changes] == ["data.txt"]
    Path(prefix, "older", ".executor_status").write_text("FAILED")
    (control_store_for(prefix)).delete_exact(f"{prefix}/older/.executor/000001.end")
    (control_store_for(prefix)).delete_exact(f"{prefix}/older/.executor/000001.claim")
    assert check_output(f"{prefix}/new/older").kind is CheckKind.DAMAGED


def test_nothing_of_an_adopted_output_is_garbage(prefix: str) -> None:
    leave(f"{prefix}/old")
    bind(f"{prefix}/new", f"{prefix}/old")
    build(f"{prefix}/other")
    bind(f"{prefix}/other", f"{prefix}/other")

    def body(path: str) -> None:
        raise ValueError("half way")

    # Somebody forces the old step, which fails: with its first log there is no success on record any more.
    Path(prefix, "old", ".executor_status").write_text("FAILED")
    with pytest.raises(ValueError, match="half way"):
        distributed_lock(body)(f"{prefix}/old")
    for name in ("old", "new", "other"):
        assert collect_garbage(f"{prefix}/{name}") == []
    assert check_output(f"{prefix}/other").kind is CheckKind.OK


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "old cannot be adopted: nothing there says that it is finished"),
        ("RUNNING", "old cannot be adopted: an older system may still build it"),
        ("FAILED", "old cannot be adopted: its last attempt is FAILED"),
    ],
)
def test_what_is_not_finished_is_not_adopted(prefix: str, token: str | None, message: str) -> None:
    put(f"{prefix}/old/data.txt")
    if token:
        put(f"{prefix}/old/.executor_status", token)
    before = tree_of(prefix)
    with pytest.raises(RunError, match=message):
        bind(f"{prefix}/new", f"{prefix}/old")
    assert tree_of(prefix) == before


def test_what_is_being_built_neither_adopts_nor_is_adopted(prefix: str) -> None:
    leave(f"{prefix}/old")
    refused: list[str] = []

    def body(path: str) -> None:
        for output, source in ((path, f"{prefix}/old"), (f"{prefix}/new", path)):
            with pytest.raises(RunError) as caught:
                bind(output, source)
            refused.append(str(caught.value))

    distributed_lock(body)(f"{prefix}/busy")
    assert f"{prefix}/busy is being built, and cannot adopt {prefix}/old meanwhile" in refused[0]
    assert f"{prefix}/busy cannot be adopted: its last attempt is RUNNING" in refused[1]
    assert read_status(f"{prefix}/busy").adopted_from is None


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("finished", "finished cannot adopt .*old: it is finished itself"),
        ("taken", "taken cannot adopt .*old: it has adopted .*other"),
        ("old/below", "old/below lies inside the other"),
    ],
)
def test_what_is_taken_adopts_nothing(prefix: str, output: str, message: str) -> None:
    for name in ("old", "other"):
        leave(f"{prefix}/{name}")
    build(f"{prefix}/finished")
    bind(f"{prefix}/taken", f"{prefix}/other")
    before = tree_of(prefix)
    with pytest.raises(RunError, match=message):
        bind(f"{prefix}/{output}", f"{prefix}/old")
    assert tree_of(prefix) == before


@pytest.mark.parametrize("place", ["", "memory://adoption"])
def test_of_many_who_adopt_and_build_at_once_one_decides(prefix: str, place: str) -> None:
    root, rounds, workers = place or prefix, 20, 4
    for name in ("a", "b"):
        build(f"{root}/{name}")

    def race(output: str, number: int, barrier: Barrier) -> object:
        barrier.wait(30)
        try:
            if number % 2:
                return bind(output, f"{root}/{'ab'[number // 2]}")
            distributed_lock(lambda path: put(f"{path}/built")).attempt(output)
        except MarinTraceError as error:
            return error
        return "built"

    for turn in range(rounds):
        output, barrier = f"{root}/new-{turn}", Barrier(workers)
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(lambda number: race(output, number, barrier), range(workers)))  # noqa: B023
        won = [result for result in results if result in (AdoptionKind.ADOPTED, "built")]
        assert len(won) == 1, results
        assert (read_status(output).adopted_from is None) == (won == ["built"])


def test_who_had_just_begun_to_build_is_stopped(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    leave(f"{prefix}/old")
    planned, began, may_end = adoption_of(f"{prefix}/new", f"{prefix}/old", NEW), Event(), Event()

    def body(path: str) -> None:
        began.set()
        assert may_end.wait(30)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(distributed_lock(body).attempt, f"{prefix}/new")
        assert began.wait(30)
        assert adopt(planned, NEW) is AdoptionKind.ADOPTED
        may_end.set()
        assert isinstance(running.exception(30), LeaseLostError)
    assert "another launcher had just begun to build it" in caplog.text
    assert read_status(f"{prefix}/new").adopted_from == f"{prefix}/old"


def test_a_step_written_by_hand_is_told_that_it_would_look_in_the_wrong_place(prefix: str, source: str) -> None:
    raw = StepSpec("raw")
    bind(raw.output_path, source, raw.fingerprint)
    reading = StepSpec("reading", deps=[raw], fn=lambda path: Path(raw.output_path, "data.txt").read_text())
    with pytest.raises(
        RunError, match="reading was written by hand, and would look for an adopted output at"
    ) as caught:
        executor_main(steps=[reading], argv=[])
    assert source in str(caught.value)
    assert Path(__file__).name in str(caught.value)
    assert executor_main(steps=[raw], argv=[]).output_path(raw) == source


@pytest.mark.parametrize(
    "record", [{"adopted_from": 3}, {"adopted_from": "", "adopted_epoch": "x"}, {"adopted_from": None}]
)
def test_a_record_that_says_nothing_of_an_adoption_is_none(prefix: str, record: dict[str, Any]) -> None:
    distributed_lock(lambda path: 1).with_options(AttemptOptions(record=record))(f"{prefix}/odd")
    status = read_status(f"{prefix}/odd")
    assert (status.kind, status.adopted_from, status.adopted_epoch) == (StatusKind.SUCCESS, None, 0)


def test_outputs_that_adopt_each_other_are_followed_once(prefix: str) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        record = {"adopted_from": f"{prefix}/{other}", "adopted_epoch": 1}
        distributed_lock(lambda path: 1).with_options(AttemptOptions(record=record))(f"{prefix}/{name}")
    assert check_output(f"{prefix}/a").kind is CheckKind.CORRUPT
    with pytest.raises(ArtifactError, match=r"there is no artifact at .*/b/"):
        Artifact.load(f"{prefix}/a")
    with pytest.raises(RunError, match="outputs that adopted each other"):
        adoption_of(f"{prefix}/new", f"{prefix}/a", NEW)


def test_an_interrupted_adoption_leaves_nothing_open(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(f"{prefix}/old")
    store = type(control_store_for(prefix))
    create = store.put_if_absent

    def interrupted(self: Any, path: str, content: bytes, *, durable: bool = False) -> bool:
        if path.endswith(".end"):
            raise KeyboardInterrupt
        return create(self, path, content, durable=durable)

    with monkeypatch.context() as patched:
        patched.setattr(store, "put_if_absent", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bind(f"{prefix}/new", f"{prefix}/old")
    assert read_status(f"{prefix}/new").kind is StatusKind.MISSING
    assert read_status(f"{prefix}/old").kind is StatusKind.LEGACY_SUCCESS
    assert bind(f"{prefix}/new", f"{prefix}/old") is AdoptionKind.ADOPTED
    [mark] = Path(prefix, "old", ".executor").iterdir()
    assert json.loads(mark.read_text()) == {"adopted_by": f"{prefix}/new", "fingerprint": NEW}
