"""Laws of every control store; and of those of clouds, what each fault comes to."""

import contextlib
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from marin_trace.errors import PrefixError, StorageError, StoreRefusedError, StoreUnavailableError
from marin_trace.storage import control_store
from marin_trace.storage.control_store import ControlStore, control_store_for, patient_store_for
from marin_trace.storage.gcs_store import gcs_control_store
from marin_trace.storage.object_store import ObjectControlStore, ObjectRequests
from marin_trace.storage.patient_store import PatientStore
from marin_trace.storage.s3_store import s3_control_store
from tests.storage.clouds import Cloud, gcs_cloud
from tests.storage.faults import Call, Fault, lost_answer, status_after, status_before, truncated
from tests.storage.racer import winners_among_threads

CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>Two requests met</Message></Error>"


@pytest.fixture
def store(base: str) -> ControlStore:
    return control_store_for(base)


@pytest.mark.parametrize("durable", [False, True])
def test_the_first_create_wins_and_stands(store: ControlStore, base: str, durable: bool) -> None:
    path = f"{base}/deep/er/claim"
    assert store.put_if_absent(path, b"first", durable=durable)
    assert not store.put_if_absent(path, b"second", durable=durable)
    assert store.get(path) == b"first"


def test_an_empty_file_is_one_that_is_there(store: ControlStore, base: str) -> None:
    assert store.put_if_absent(f"{base}/claim", b"")
    assert not store.put_if_absent(f"{base}/claim", b"x")
    assert store.get(f"{base}/claim") == b""


def test_put_replaces(store: ControlStore, base: str) -> None:
    store.put(f"{base}/token", b"RUNNING")
    store.put(f"{base}/token", b"SUCCESS")
    assert store.get(f"{base}/token") == b"SUCCESS"
    assert not store.put_if_absent(f"{base}/token", b"x")


def test_what_is_missing_is_none(store: ControlStore, base: str) -> None:
    store.put(f"{base}/file", b"")
    assert store.get(f"{base}/no/such") is None
    assert store.get(f"{base}/file/below") is None
    assert store.list(f"{base}/no") == []


def test_many_are_read_in_order(store: ControlStore, base: str) -> None:
    for number in range(20):
        store.put(f"{base}/{number}", f"{number}".encode())
    paths = [f"{base}/{number}" for number in range(-1, 21)]
    assert store.get_many(paths) == [None, *(f"{number}".encode() for number in range(20)), None]
    assert store.get_many([]) == []


def test_list_gives_the_sorted_names_of_files_alone(store: ControlStore, base: str) -> None:
    for name in ("log/000002.claim", "log/000001.end", "log/sub/x", "logs/y"):
        store.put(f"{base}/{name}", b"")
    assert store.list(f"{base}/log") == ["000001.end", "000002.claim"]


def test_directories_are_listed_by_the_begin_of_their_names(store: ControlStore, base: str) -> None:
    for name in ("b-1/x", "b-1/deeper/y", "a/x", "b-2/x", "b-file", "c/x"):
        store.put(f"{base}/{name}", b"x")
    assert list(store.list_directories(base)) == ["a", "b-1", "b-2", "c"]
    assert list(store.list_directories(base, starting="b-")) == ["b-1", "b-2"]
    assert list(store.list_directories(f"{base}/absent")) == []


@pytest.mark.parametrize("name", ["run[12]", "run*", "run?", "a b", "ü%2F", "x#1", "100%", "a+b", "a&b=c"])
def test_a_name_is_a_key_and_no_pattern(store: ControlStore, base: str, name: str) -> None:
    others = ["run1", "run2", "ab"]
    for other in (*others, name):
        assert store.put_if_absent(f"{base}/log/{other}", other.encode())
    assert store.get(f"{base}/log/{name}") == name.encode()
    assert store.list(f"{base}/log") == sorted([*others, name])
    store.delete_exact(f"{base}/log/{name}")
    store.delete_exact(f"{base}/log/{name}")
    assert store.list(f"{base}/log") == sorted(others)


@pytest.mark.parametrize("content", [os.urandom(300_000), b"\r\n--boundary--\r\n", b"\n", b"\0"])
def test_what_is_read_is_what_was_written(store: ControlStore, base: str, content: bytes) -> None:
    store.put(f"{base}/file", content)
    assert store.get(f"{base}/file") == content


def test_sixteen_threads_race_and_one_wins_each_round(base: str) -> None:
    assert winners_among_threads(base, 16, 10) == [1] * 10


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
# JAX, where another test of this process has imported it, warns of every fork.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_eight_processes_race_in_a_cloud_and_one_wins_each_round(cloud: Cloud) -> None:
    # Forked from a process whose event loop runs: each child has to have connections of its own.
    base = f"{cloud.bucket}/processes"
    control_store_for(base).put(f"{base}/warm", b"")
    context = multiprocessing.get_context("fork")
    starts, results = [context.Pipe() for _ in range(8)], context.SimpleQueue()

    def compete(number: int) -> None:
        store = control_store_for(base)
        results.put(store.get(f"{base}/warm"))
        for round_number in range(5):
            starts[number][1].recv()
            results.put(store.put_if_absent(f"{base}/{round_number}", f"{number}".encode()))
        os._exit(0)

    processes = [context.Process(target=compete, args=(number,), daemon=True) for number in range(8)]
    for process in processes:
        process.start()
    assert [results.get() for _ in processes] == [b""] * 8
    for _ in range(5):
        for start, _ in starts:
            start.send(None)
        assert sum(results.get() for _ in processes) == 1
    for process in processes:
        process.join(10)


def test_a_log_of_several_pages_is_listed_whole(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    with gcs_cloud(page_size=7) if cloud.bucket.startswith("gs:") else contextlib.nullcontext(cloud) as paged:
        store = control_store_for(paged.bucket)
        for number in range(30):
            store.put(f"{paged.bucket}/pages/{number:03d}", b"")
        paged.faults.clear()
        assert store.list(f"{paged.bucket}/pages") == [f"{number:03d}" for number in range(30)]
        assert len(paged.faults.calls) == 5


def test_more_than_a_thousand_names_are_listed_whole(gcs: Cloud) -> None:
    store, names = control_store_for(gcs.bucket), [f"{number:04d}" for number in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.put(f"{gcs.bucket}/many/{name}", b""), names))
    assert store.list(f"{gcs.bucket}/many") == names


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status_before(401), StoreRefusedError),
        (status_before(403), StoreRefusedError),
        (status_before(408), StoreUnavailableError),
        (status_before(409, CONFLICT), StoreUnavailableError),
        (status_before(429), StoreUnavailableError),
        (status_before(500), StoreUnavailableError),
        (status_before(503), StoreUnavailableError),
        (status_after(503), StoreUnavailableError),
        (status_after(502), StoreUnavailableError),
        (status_before(418), StorageError),
    ],
)
@pytest.mark.parametrize("act", ["put_if_absent", "put", "get", "get_many", "list", "delete_exact"])
def test_a_fault_is_told_by_its_kind_and_after_one_request(
    cloud: Cloud, fault: Fault, error: type[StorageError], act: str
) -> None:
    store, path = control_store_for(cloud.bucket), f"{cloud.bucket}/faults/{os.urandom(4).hex()}"
    acts: dict[str, Callable[[], object]] = {
        "put_if_absent": lambda: store.put_if_absent(path, b"x"),
        "put": lambda: store.put(path, b"x"),
        "get": lambda: store.get(path),
        "get_many": lambda: store.get_many([path]),
        "list": lambda: store.list(path),
        "delete_exact": lambda: store.delete_exact(path),
    }
    cloud.faults.clear()
    cloud.faults.hit(fault, where=lambda call: True)
    with pytest.raises(StorageError, match=f"cannot .* {re.escape(path)}: ") as caught:
        acts[act]()
    assert type(caught.value) is error
    assert len(cloud.faults.calls) == 1


@pytest.mark.parametrize("act", ["put_if_absent", "put"])
def test_a_lost_answer_of_a_write_is_told_and_not_sent_again(gcs: Cloud, act: str) -> None:
    store, path = control_store_for(gcs.bucket), f"{gcs.bucket}/lost/{act}"
    gcs.faults.clear()
    gcs.faults.hit(lost_answer)
    with pytest.raises(StoreUnavailableError, match=f"cannot write {path}"):
        getattr(store, act)(path, b"x")
    assert len(gcs.faults.calls) == 1
    assert store.get(path) == b"x"


def test_a_lost_answer_of_s3_may_look_like_a_conflict(s3: Cloud) -> None:
    # aiohttp sends a PUT again by itself where a connection was kept: whoever creates has to read back.
    store, path = control_store_for(s3.bucket), f"{s3.bucket}/lost/{os.urandom(4).hex()}"
    s3.faults.clear()
    s3.faults.hit(lost_answer)
    with contextlib.suppress(StoreUnavailableError):
        assert not store.put_if_absent(path, b"x")
    assert store.get(path) == b"x"


def test_half_an_answer_is_no_answer(cloud: Cloud) -> None:
    store, path = control_store_for(cloud.bucket), f"{cloud.bucket}/half"
    store.put(path, b"0123456789" * 100)
    cloud.faults.hit(truncated, where=lambda call: call.method == "GET")
    with pytest.raises(StoreUnavailableError, match=f"cannot read {path}: "):
        store.get(path)


@pytest.mark.parametrize("make", [gcs_control_store, s3_control_store])
def test_no_request_takes_longer_than_its_deadline(
    make: Callable[[], ObjectControlStore], request: pytest.FixtureRequest
) -> None:
    cloud: Cloud = request.getfixturevalue("gcs" if make is gcs_control_store else "s3")
    store = ObjectControlStore(make()._requests, deadline_s=0.2)
    gone = threading.Event()

    def hang(call: Call, answer: object) -> None:
        gone.wait(30)

    cloud.faults.hit(hang, where=lambda call: True)
    with pytest.raises(StoreUnavailableError, match=r"no answer for 0\.2 s"):
        store.put_if_absent(f"{cloud.bucket}/slow", b"x")
    gone.set()


def test_many_threads_share_one_client(cloud: Cloud) -> None:
    control_store._object_stores.clear()
    with ThreadPoolExecutor(16) as pool:
        stores = list(pool.map(lambda _: control_store_for(cloud.bucket), range(16)))
    assert len(set(map(id, stores))) == 1


@pytest.mark.parametrize(("raised", "error"), [(RuntimeError, StorageError), (KeyError, StoreUnavailableError)])
def test_what_a_library_raises_is_tried_again_unless_the_interpreter_ends(
    raised: type[Exception], error: type[StorageError]
) -> None:
    class Broken:
        async def read(self, bucket: str, key: str) -> bytes:
            raise raised("cannot schedule new futures after shutdown")

        def storage_error(self, error: Exception, what: str) -> None:
            return None

    requests: ObjectRequests = Broken()  # pyright: ignore[reportAssignmentType]
    with pytest.raises(StorageError, match=r"cannot read gs://bucket/x: .*after shutdown") as caught:
        ObjectControlStore(requests).get("gs://bucket/x")
    assert type(caught.value) is error


def test_a_refusal_names_what_the_store_says(cloud: Cloud) -> None:
    said = b"<Error><Code>AccessDenied</Code><Message>not for you</Message></Error>"
    cloud.faults.hit(status_before(403, said))
    with pytest.raises(StoreRefusedError, match=r"HTTP status 403, .*not for you"):
        control_store_for(cloud.bucket).put(f"{cloud.bucket}/x", b"")


def test_expired_credentials_are_a_refusal_whatever_their_status(s3: Cloud) -> None:
    s3.faults.hit(status_before(400, b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"))
    with pytest.raises(StoreRefusedError, match="ExpiredToken expired"):
        control_store_for(s3.bucket).put(f"{s3.bucket}/x", b"")


def test_a_bucket_that_is_missing_is_named(s3: Cloud) -> None:
    store = control_store_for("s3://nowhere/x")
    with pytest.raises(StorageError, match="cannot list s3://nowhere/x: there is no bucket nowhere"):
        store.list("s3://nowhere/x")
    with pytest.raises(StorageError, match="NoSuchBucket"):
        store.put("s3://nowhere/x", b"")


def test_a_server_that_is_gone_is_unavailable() -> None:
    with gcs_cloud() as cloud:
        store = gcs_control_store()
    with pytest.raises(StorageError, match="cannot read"):
        ObjectControlStore(store._requests, deadline_s=1.0).get(f"{cloud.bucket}/x")


@pytest.mark.parametrize("fault", [lost_answer, status_after(503), status_before(429), status_before(409, CONFLICT)])
def test_patience_outlasts_a_fault_and_knows_its_own_content(cloud: Cloud, fault: Fault) -> None:
    store, waits = PatientStore(control_store_for(cloud.bucket), sleep=lambda seconds: waits.append(seconds)), []
    path = f"{cloud.bucket}/patient/{os.urandom(4).hex()}"
    cloud.faults.hit(fault, times=2)
    assert store.put_if_absent(path, b"ours")
    assert not store.put_if_absent(path, b"theirs")
    assert len(waits) == 2 or fault is lost_answer
    assert store.get_many([path]) == [b"ours"]


def test_patience_ends_after_a_minute() -> None:
    class Silent:
        def get(self, path: str) -> bytes:
            raise StoreUnavailableError("cannot read x: nobody there")

    times: list[float] = [0.0]
    silent: ControlStore = Silent()  # pyright: ignore[reportAssignmentType]
    store = PatientStore(silent, clock=lambda: times[-1], sleep=lambda seconds: times.append(times[-1] + seconds))
    with pytest.raises(StoreUnavailableError, match="nobody there"):
        store.get("x")
    assert 60 <= times[-1] <= 65


def test_local_stores_need_no_patience(tmp_path: os.PathLike[str]) -> None:
    assert patient_store_for(str(tmp_path)) is control_store_for(str(tmp_path))


@pytest.mark.parametrize(("protocol", "extra"), [("gs", "gcs"), ("gcs", "gcs"), ("s3", "s3")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, protocol: str, extra: str) -> None:
    control_store._object_stores.clear()
    for module in ("gcsfs", "gcsfs.core", "s3fs", "s3fs.core"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PrefixError, match=rf"pip install 'marin-trace\[{extra}\]'"):
        control_store_for(f"{protocol}://bucket/x")
