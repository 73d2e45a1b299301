"""fuzz: every reader of stored bytes, on files of a real run that were damaged, forged or swapped.

Never a crash (only errors of this package's own tree), never a hang, and never a wrong SUCCESS: no hit where the
original was not finished, and none on another recipe's output. Inputs are read in processes of their own, a few
thousand each, so that one that kills or stalls the interpreter is seen as well.
"""

import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from marin_trace.errors import MarinTraceError, RunFailedError
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.gang import join_gang, look_at_others
from marin_trace.runtime.gang_records import DoneRecord, ReadyRecord
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    FailurePhase,
    HeartbeatRecord,
    JobIdentity,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.maintenance import check_output, collect_garbage, evidence_of
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.protocol import observe, read_state
from marin_trace.runtime.records import read_step_info
from marin_trace.runtime.run_plan import plan_run
from marin_trace.runtime.step_runner import StepRunner
from tests.soak.mutations import mutated, planted
from tests.soak.series import Outcome, Series, Terms, run_trials
from tests.soak.site import ROOT

INPUTS, BATCH = 100_000, 4_000
LIMIT_S = 5.0
"""For one input: a thousand times what one takes."""
BATCH_LIMIT_S = 300.0
MEMORY_BYTES = 6 << 30
"""Of a process that reads: far below what a forged size asks for."""
PLANTED = 0.02
"""Part of the inputs that are no regular files, or huge ones."""


@dataclass(frozen=True)
class Measured:
    """What a step of the run returns."""

    rows: int
    shares: dict[str, float]
    names: tuple[str, ...]
    raw: bytes
    best: float | None = None


class Hang(BaseException):
    """An input took longer than any should."""


@dataclass(frozen=True, slots=True)
class Victim:
    """One output of the run, with the step that it is the output of."""

    spec: StepSpec
    is_finished: bool
    artifact_type: Any
    files: tuple[Path, ...]
    """What is damaged."""


def measure(output_path: str) -> Measured:
    Path(output_path, "rows.txt").write_text("1\n2\n")
    Path(output_path, "sub").mkdir()
    Path(output_path, "sub", "more.txt").write_text("x" * 100)
    return Measured(2, {"a": 0.5, "b": float("inf")}, ("x", "y"), b"\x00\xff", None)


def weigh(output_path: str) -> Any:
    import numpy as np

    return {"weights": np.arange(6.0).reshape(2, 3), "of": [{1: "a"}, {"deep": [[["x"]]]}]}


def fail(output_path: str) -> None:
    Path(output_path, "half.txt").write_text("half")
    raise ValueError("the input ends half way")


def stop(output_path: str) -> None:
    raise KeyboardInterrupt


def prepared(prefix: Path) -> list[Victim]:
    """A small run with outputs in every state."""
    fns: dict[str, Callable[[str], Any]] = {"measured": measure, "weighed": weigh, "failed": fail, "released": stop}
    specs = {name: _spec(name, fn, prefix) for name, fn in fns.items()}
    with suppress(RunFailedError):
        chosen = [spec for name, spec in specs.items() if name != "released"]
        StepRunner(options=RunOptions(prefix=str(prefix))).run(chosen, max_concurrent=1)
    with suppress(KeyboardInterrupt):
        distributed_lock(stop)(specs["released"].output_path)
    for name, job in (("held", None), ("submitted", JobIdentity("fuzz-1", "elsewhere", "d"))):
        specs[name] = _spec(name, measure, prefix)
        _leave_open(specs[name].output_path, job)
    types = {"measured": Measured, "weighed": None}
    return [
        Victim(spec, name in types, types.get(name), tuple(_control_files(spec.output_path)))
        for name, spec in specs.items()
    ]


def _spec(name: str, fn: Callable[[str], Any], prefix: Path) -> StepSpec:
    return StepSpec(f"fuzz/{name}", hash_attrs={"config": {"name": name}}, fn=fn, output_path_prefix=str(prefix))


def _leave_open(output_path: str, job: JobIdentity | None) -> None:
    """An attempt as its owner writes it, without its end."""
    log = AttemptLog(output_path)
    Path(log.directory).mkdir(parents=True)
    claim = replace(draft_claim(lease_s=30.0, job=job), epoch=1)
    Path(log.claim(1)).write_bytes(claim.to_bytes())
    Path(log.heartbeat(1)).write_bytes(HeartbeatRecord(claim.nonce, 1, claim.nonce, 1.5).to_bytes())
    Path(log.cancel(1)).write_bytes(CancelRecord("me", "no reason").to_bytes())
    if job is not None:
        start = StartRecord(claim.nonce, "attempt", claim.host, claim.pid, claim.process_nonce, gang="gang")
        Path(log.start(1)).write_bytes(start.to_bytes())
        Path(log.ready(1)).write_bytes(ReadyRecord("attempt", "host.example:1234").to_bytes())
        failure = StepFailure("builtins.ValueError", "no", FailurePhase.BODY, "traceback")
        Path(log.done(1, 1)).write_bytes(DoneRecord("attempt", 1, failure).to_bytes())


def _control_files(output_path: str) -> Iterator[Path]:
    """What this package has written into an output, and reads again."""
    for path in sorted(Path(output_path).rglob("*")):
        if (path.is_file() and path.suffix != ".log" and ".executor" in f"{path}") or path.name.startswith(".artifact"):
            yield path


def read_everything(victim: Victim, path: Path, refused: Counter[str]) -> str | None:
    """Reads an output in every way that there is; what is wrong, if anything.

    Args:
        victim: Whose file was damaged.
        path: The file.
        refused: Counts the errors that named what was wrong, by class.
    """
    output = victim.spec.output_path
    is_hit = False

    def plans() -> None:
        nonlocal is_hit
        is_hit = not plan_run([victim.spec], RunOptions(prefix=output)).to_run

    readers: list[Callable[[], object]] = [plans, lambda: check_output(output)]
    if path.parent.name == ".executor":
        readers += [lambda: evidence_of(output), lambda: collect_garbage(output), lambda: _observe(output)]
    elif path.name == ".executor_info":
        readers += [lambda: read_step_info(output)]
    else:
        readers += [lambda: Artifact.load(output), lambda: Artifact.load(output, victim.artifact_type)]
    for reader in readers:
        try:
            reader()
        except MarinTraceError as error:
            refused[type(error).__name__] += 1
        except Exception:
            return f"crash: {traceback.format_exc(limit=-4)}"
    return "a hit on what was not finished" if is_hit and not victim.is_finished else None


def _observe(output: str) -> None:
    driver, log = driver_for(output), AttemptLog(output)
    state = driver.run(read_state(log))
    if state.claim is None:
        return
    if state.claim.job is None:
        driver.run(observe(log, state.claim, draft_claim(lease_s=30.0), None))
    else:
        driver.run(join_gang(log, state.claim.job, "gang", 30.0, None))
        driver.run(look_at_others(log, state.claim, size=2))


def run_batch(directory: Path, seed: int, number: int, count: int) -> dict[str, Any]:
    """Reads so many inputs; how many were refused, and what broke."""
    dice = random.Random(f"fuzz {seed} {number}")
    victims = prepared(directory / "prefix")
    originals = {path: path.read_bytes() for victim in victims for path in victim.files}
    refused: Counter[str] = Counter()
    violations: list[str] = []
    slowest_s, began = 0.0, time.monotonic()
    for index in range(count):
        victim = dice.choice([one for one in victims if one.files])
        path = dice.choice(victim.files)
        _damage(path, originals, dice)
        started = time.monotonic()
        try:
            with limited(LIMIT_S):
                problem = read_everything(victim, path, refused)
        except Hang:
            problem = f"a hang: {traceback.format_exc(limit=-6)}"
        slowest_s = max(slowest_s, time.monotonic() - started)
        if problem is not None:
            kept = _kept(path, directory / f"input-{index}")
            violations.append(f"batch {number}, input {index}, {path.relative_to(directory)} ({kept}): {problem}")
        _restore(path, originals[path])
    seconds = time.monotonic() - began
    return {
        "inputs": count,
        "refused": dict(refused),
        "violations": violations,
        "slowest_s": slowest_s,
        "seconds": seconds,
    }


def _damage(path: Path, originals: dict[Path, bytes], dice: random.Random) -> None:
    if dice.random() < PLANTED:
        planted(path, dice)
    else:
        path.write_bytes(mutated(originals[path], list(originals.values()), dice))


def _restore(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


def _kept(path: Path, copy: Path) -> Path | str:
    """A copy of an input that broke something, where it is one that can be copied."""
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return "not kept"
    return Path(shutil.copyfile(path, copy))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `Hang` in the block after so long."""

    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_in_process(terms: Terms, number: int) -> dict[str, Any]:
    """One batch in a process of its own."""
    directory = terms.directory / f"batch-{number}"
    directory.mkdir(parents=True)
    count = min(BATCH, terms.count(INPUTS))
    command = [sys.executable, "-m", "tests.soak.fuzz", str(directory), str(terms.seed), str(number), str(count)]
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BATCH_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"inputs": 0, "violations": [f"batch {number}: a hang that no signal ends"]}
    if done.returncode != 0:
        return {"inputs": 0, "violations": [f"batch {number}: exit code {done.returncode}: {done.stderr[-2000:]}"]}
    result: dict[str, Any] = json.loads(done.stdout)
    if not result["violations"]:
        shutil.rmtree(directory)
    return result


def damaged_files(terms: Terms) -> Outcome:
    """The series."""
    wanted = terms.count(INPUTS)

    def is_enough(results: Sequence[dict[str, Any]]) -> bool:
        return sum(result["inputs"] for result in results) >= wanted

    began = time.monotonic()
    results = run_trials(terms, partial(run_in_process, terms), is_enough)
    inputs = sum(result["inputs"] for result in results)
    refused: Counter[str] = sum((Counter(result.get("refused", {})) for result in results), Counter())
    slowest_s = max((result.get("slowest_s", 0.0) for result in results), default=0.0)
    rate = inputs / max(time.monotonic() - began, 1e-9)
    named = ", ".join(f"{count} {name}" for name, count in refused.most_common(4))
    return Outcome(
        f"{inputs} damaged files",
        tuple(violation for result in results for violation in result["violations"]),
        f"{rate:.0f} a second, the slowest {slowest_s:.2f} s; refused with {named}",
    )


SERIES = (Series("fuzz", "readers of damaged and forged files", damaged_files, weight=200),)


def main(argv: Sequence[str]) -> None:
    """Runs one batch and prints what came of it."""
    directory, seed, number, count = argv
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(json.dumps(run_batch(Path(directory), int(seed), int(number), int(count))))


if __name__ == "__main__":
    main(sys.argv[1:])
