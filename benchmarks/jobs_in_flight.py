"""What one launcher takes to hold a thousand jobs that it has given to a cluster and that wait there.

    python -m benchmarks.jobs_in_flight                             # 1,000 jobs, on each engine that is installed
    python -m benchmarks.jobs_in_flight --engines ray --count 5000

A run of that many steps, on a cluster that has room for two of them: the two wait for a word that does not come, and
the others for room. From when the last one was submitted the launcher is looked at for a minute and a half: its memory
and threads, those of its lease keeper, what both take of a processor, how often it asks the store, and, of an engine
that has to be asked, how often that. Ray and an Iris controller are started here, on loopback.
"""

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.remote_steps import own_ray
from marin_trace import ResourceConfig, deferred, executor_main, output, step
from marin_trace.runtime.process_tree import descendants_of
from marin_trace.storage.local_store import LocalControlStore
from marin_trace.workers.client import JobRequest

ROOT = Path(__file__).resolve().parents[1]
ROOM = 2
"""Jobs that the cluster runs at a time."""
WATCHED_S = 90.0
"""Six heartbeats of a lease of two minutes."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for_word(path: str, word: str) -> None:
    """The body of a step that does not end."""
    while not os.path.exists(word):
        time.sleep(1)


@step(name="waits-{number}")
def waiting_step(number: int, word: str) -> Any:
    """One of many."""
    return deferred(wait_for_word, identity="benchmarks:wait_for_word")(output(), word)


class Usage:
    """What a process takes at this moment."""

    def __init__(self, pid: int) -> None:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu_s = (int(fields[11]) + int(fields[12])) * TICK_S
        self.threads = int(fields[17])
        self.memory_mb = int(fields[21]) * PAGE_MB


def launch(count: int, share: float, prefix: str, cluster: str) -> None:
    """Runs the steps, in a process of its own that never ends by itself; prints what it took as JSON."""
    asked: Counter[str] = Counter()
    submitted = threading.Semaphore(0)
    for name in ("get", "get_many", "list", "put", "put_if_absent"):
        setattr(LocalControlStore, name, counting(getattr(LocalControlStore, name), name, asked))
    count_questions_to(cluster, asked, submitted)
    threading.Thread(target=watch, args=(count, submitted, asked), daemon=True).start()
    placed = waiting_step.with_options(resources=ResourceConfig.with_cpu(share, ram="1g"))
    flags = ["--prefix", prefix, "--cluster", cluster, "--max_jobs", str(count)]
    executor_main(steps=[placed(number, f"{prefix}/word") for number in range(count)], argv=flags)


def counting(method: Callable[..., Any], name: str, asked: Counter[str]) -> Callable[..., Any]:
    """A method of the store that counts requests."""

    @functools.wraps(method)
    def counted(self: LocalControlStore, *args: Any, **kwargs: Any) -> Any:
        asked[name] += len(args[0]) if name == "get_many" else 1
        return method(self, *args, **kwargs)

    return counted


def count_questions_to(cluster: str, asked: Counter[str], submitted: threading.Semaphore) -> None:
    """Counts what the engine is asked, and tells of each job that it has taken."""
    if cluster == "ray":
        from marin_trace.workers.ray import RayClient as Client
    else:
        from marin_trace.workers.fray import FrayClient as Client
        from marin_trace.workers.fray_engine import FrayEngine

        ask = FrayEngine.statuses

        def counted(engine: FrayEngine, job_ids: Any) -> Any:
            asked["statuses"] += 1
            return ask(engine, job_ids)

        FrayEngine.statuses = counted
    submit = Client.submit

    def submitting(client: Any, request: JobRequest) -> Any:
        handle = submit(client, request)
        submitted.release()
        return handle

    Client.submit = submitting


def watch(count: int, submitted: threading.Semaphore, asked: Counter[str]) -> None:
    """Waits until all jobs are in flight, and looks at this process and its keeper for a while."""
    began = time.perf_counter()
    for _ in range(count):
        submitted.acquire()
    took_s = time.perf_counter() - began
    (keeper,) = (pid for pid in descendants_of(os.getpid()) if is_keeper(pid))
    before = {pid: Usage(pid) for pid in (os.getpid(), keeper)}
    asked.clear()
    time.sleep(WATCHED_S)
    after = {pid: Usage(pid) for pid in before}
    told = {
        role: {
            "memory MB": round(after[pid].memory_mb),
            "threads": after[pid].threads,
            "of a processor": round((after[pid].cpu_s - before[pid].cpu_s) / WATCHED_S, 3),
        }
        for role, pid in (("launcher", os.getpid()), ("its keeper", keeper))
    }
    rates = {f"{name}/s": round(number / WATCHED_S, 1) for name, number in sorted(asked.items())}
    print(json.dumps({"submitted in s": round(took_s, 1), **told, "launcher asks": rates}), flush=True)
    os._exit(0)


def is_keeper(pid: int) -> bool:
    """Whether a process is a lease keeper."""
    return b"keeper_process" in Path(f"/proc/{pid}/cmdline").read_bytes()


def measure(count: int, share: float, cluster: str) -> None:
    """Prints what a launcher takes on a cluster that runs."""
    # What the launcher leaves behind may still write for a moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as prefix:
        command = [sys.executable, "-m", "benchmarks.jobs_in_flight", "--count", str(count)]
        command += ["--launch", json.dumps([share, prefix, cluster])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with (Path(prefix) / "log").open("wb") as log:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, check=False)
        if done.returncode:
            print((Path(prefix) / "log").read_text()[-2000:])
        print(f"{count} jobs on {cluster.partition(':')[0]}")
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"  {name}: {value}", flush=True)


def measure_ray(count: int) -> None:
    """On a Ray cluster of this machine."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed")
        return
    with own_ray() as ray:
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        measure(count, ray.cluster_resources()["CPU"] / ROOM, "ray")


def measure_fray(count: int) -> None:
    """On an Iris controller of this machine."""
    if importlib.util.find_spec("fray") is None or importlib.util.find_spec("iris") is None:
        print("marin-fray or marin-iris is not installed")
        return
    from tests.workers.iris_site import PROCESSOR_CORES, iris_cluster

    with tempfile.TemporaryDirectory() as home, iris_cluster(Path(home)) as cluster:
        measure(count, PROCESSOR_CORES, f"fray://{cluster.address}")


def main() -> None:
    """Measures the engines that are here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", choices=("ray", "fray"), default=("ray", "fray"))
    parser.add_argument("--launch", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.launch is not None:
        launch(given.count, *given.launch)
        return
    for engine in given.engines:
        {"ray": measure_ray, "fray": measure_fray}[engine](given.count)


if __name__ == "__main__":
    main()
