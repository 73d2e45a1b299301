"""What a step costs that runs as a job, beside what its engine itself takes for a process.

    python -m benchmarks.remote_steps              # 20 of each, twice
    python -m benchmarks.remote_steps --count 500 --engines ray

For each engine that is installed, in turn and as often as there are rounds, the least counts: *bare*, what the engine
takes to start a process, hear of its end and let it go (locally an interpreter that does nothing; on Ray a detached
actor with a name, since nothing less outlives its launcher; on Iris a job of marin-fray's); *jobs*, the same number of
empty jobs of our client; and *steps*, a run of that many steps with resources, claimed, committed and recorded. Ray and
an Iris controller with its workers are started here, on loopback, with room for as many jobs at a time as this machine
has cores; Ray's warm tasks, which share processes, are shown for comparison.
"""

import argparse
import contextlib
import functools
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from marin_trace import ResourceConfig, deferred, executor_main, output, step
from marin_trace.workers.client import JobClient, JobRequest, job_name, use_client
from marin_trace.workers.local import LocalClient
from marin_trace.workers.machine import usable_cores
from marin_trace.workers.overlay import project_directory

ONE_CORE = ResourceConfig.with_cpu(1)
ENGINES = ("local", "ray", "fray")


def nothing(path: str) -> None:
    """The body of a step that has none."""


@step(name="step-{number}")
def empty_step(number: int) -> Any:
    """One of many."""
    return deferred(nothing, identity="benchmarks:nothing")(output())


@step(name="empty")
def empty_steps(count: int, resources: ResourceConfig) -> None:
    """All of them."""
    placed = empty_step.with_options(resources=resources)
    for number in range(count):
        placed(number)


def run_steps(client: JobClient, count: int, resources: ResourceConfig = ONE_CORE) -> None:
    """A run of steps that are all to be built."""
    with tempfile.TemporaryDirectory() as prefix, use_client(client):
        executor_main(steps=[empty_steps(count, resources)], argv=["--prefix", prefix])


def run_jobs(client: JobClient, count: int, resources: ResourceConfig = ONE_CORE) -> None:
    """Empty jobs, submitted one after the other, as a run does, and then awaited."""
    handles = [client.submit(JobRequest(job_name("bench"), int, resources=resources)) for _ in range(count)]
    for handle in handles:
        while not handle.wait().is_over:
            continue
        if (error := handle.exception()) is not None:
            raise error
        handle.forget()


def side_by_side(call: Callable[[], object], count: int, *, width: int) -> None:
    """Makes a call many times, so many at once."""
    with ThreadPoolExecutor(width) as pool:
        for made in [pool.submit(call) for _ in range(count)]:
            made.result()


def bare_process() -> None:
    """What a job needs at least on this machine."""
    subprocess.run([sys.executable, "-c", "pass"], check=True)


class BareActor:
    """What a job needs at least on Ray."""

    def work(self) -> None:
        """Nothing."""


def bare_actors(ray: Any, count: int) -> None:
    """Detached actors that each do nothing, once."""
    make = ray.remote(BareActor).options
    actors = [make(name=job_name("bare"), lifetime="detached", num_cpus=1).remote() for _ in range(count)]
    actor_by_answer = {actor.work.remote(): actor for actor in actors}
    left = list(actor_by_answer)
    while left:
        done, left = ray.wait(left)
        for answer in done:
            ray.get(answer)
            ray.kill(actor_by_answer[answer])


@contextlib.contextmanager
def own_ray() -> Iterator[Any]:
    """Ray on this machine, without what it sends home."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(
        num_cpus=usable_cores(),
        namespace="benchmarks",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def bare_iris_jobs(url: str, count: int, resources: ResourceConfig) -> None:
    """Jobs of marin-fray's own client that do nothing, asked about all at once until all have ended.

    They are given this project to unpack, as ours are.
    """
    from iris.client.client import IrisClient

    from marin_trace.workers.fray_engine import FrayEngine
    from marin_trace.workers.fray_package import load_fray

    package = load_fray()
    client = package.iris.FrayIrisClient.from_iris_client(IrisClient.remote(url, workspace=project_directory()))
    engine = FrayEngine(package, client, name="Iris", patience_s=60.0)
    types = package.types
    place = types.ResourceConfig(cpu=resources.cpu, ram="1g", disk="1g")
    requests = (
        types.JobRequest(job_name("bare"), types.Entrypoint.from_callable(int), place, types.create_environment())
        for _ in range(count)
    )
    left = [str(client.submit(request).job_id) for request in requests]
    while left:
        left = [job_id for job_id, status in engine.statuses(left).items() if not status.is_over]
        time.sleep(0.1)


def measured(acts: dict[str, Callable[[], None]], count: int, rounds: int) -> None:
    """Prints the least milliseconds of each act, made in turn, and how often the first that is."""
    best = dict.fromkeys(acts, float("inf"))
    for _ in range(rounds):
        for name, act in acts.items():
            began = time.perf_counter()
            act()
            best[name] = min(best[name], time.perf_counter() - began)
    first = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"{name:<32} {1000 * seconds / count:8.1f} ms each {seconds / first:8.2f} x", flush=True)


def measure_local(count: int, rounds: int) -> None:
    """Processes of this machine."""
    local, cores = LocalClient(), usable_cores()
    acts = {
        "local: bare process": functools.partial(side_by_side, bare_process, count, width=cores),
        "local: jobs": functools.partial(side_by_side, functools.partial(run_jobs, local, 1), count, width=cores),
        "local: steps": functools.partial(run_steps, local, count),
    }
    measured(acts, count, rounds)


def measure_ray(count: int, rounds: int) -> None:
    """Actors of a Ray cluster."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed")
        return
    from marin_trace.workers.ray import RayClient

    with own_ray() as ray:
        client = RayClient()
        warm = ray.remote(num_cpus=1)(lambda: 0)
        acts = {
            "ray: bare actor": functools.partial(bare_actors, ray, count),
            "ray: jobs": functools.partial(run_jobs, client, count),
            "ray: steps": functools.partial(run_steps, client, count),
            "ray: warm task": lambda: ray.get([warm.remote() for _ in range(count)]),
        }
        measured(acts, count, rounds)


def measure_fray(count: int, rounds: int) -> None:
    """Jobs of an Iris cluster."""
    if importlib.util.find_spec("fray") is None or importlib.util.find_spec("iris") is None:
        print("marin-fray or marin-iris is not installed")
        return
    from marin_trace.workers.fray import FrayClient
    from tests.workers.iris_site import PROCESSOR_CORES, iris_cluster

    # The machines that Iris has here are larger than the one that plays them.
    share = ResourceConfig.with_cpu(PROCESSOR_CORES / usable_cores(), ram="1g", disk="1g")
    with tempfile.TemporaryDirectory() as home, iris_cluster(Path(home)) as cluster:
        client = FrayClient(cluster.address, outcomes=f"{home}/outcomes")
        acts = {
            "fray: bare Iris job": functools.partial(bare_iris_jobs, cluster.url, count, share),
            "fray: jobs": functools.partial(run_jobs, client, count, share),
            "fray: steps": functools.partial(run_steps, client, count, share),
        }
        measured(acts, count, rounds)


def main() -> None:
    """Measures the engines that are here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    given = parser.parse_args()
    logging.getLogger("marin_trace").setLevel(logging.WARNING)
    if sys.dont_write_bytecode:
        print("Python keeps no bytecode here: every process compiles what it imports, which jobs do most")
    measure = {"local": measure_local, "ray": measure_ray, "fray": measure_fray}
    for engine in given.engines:
        measure[engine](given.count, given.rounds)


if __name__ == "__main__":
    main()
