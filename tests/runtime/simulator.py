"""A world in which the protocol's own programs run under faults: machines, processes, one store, one job engine.

Time is a number and the store is a dict: nothing waits and nothing is random beyond the seed. What a worker does is
written as its production counterpart does it (claim, keeper, body, finish, end), from the same programs. `World.check`
and the checks at every write hold the invariants; `World.problems` lists what broke. Writes of data by an attempt whose
epoch has ended are counted apart (`World.data_violations`): the protocol prevents them as far as a keeper can see.
"""

import functools
import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from marin_trace.errors import LeaseLostError, StoreUnavailableError
from marin_trace.runtime import heartbeat, job_protocol, protocol
from marin_trace.runtime.heartbeat import KeptClaim
from marin_trace.runtime.job_protocol import JobView, Left
from marin_trace.runtime.log_records import (
    AttemptLog,
    ClaimRecord,
    EndKind,
    EndRecord,
    JobIdentity,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.operations import (
    Act,
    AskEngine,
    AwaitDeath,
    AwaitOwner,
    EngineWord,
    FinishingAct,
    Get,
    GetMany,
    HandOver,
    KillOwner,
    LeaseView,
    List,
    Now,
    OwnerState,
    Pause,
    ProbeOwner,
    Put,
    PutIfAbsent,
    ReadLease,
    ReadyKeeper,
    Report,
    Say,
    Submit,
    TellLost,
    Terminate,
)
from marin_trace.runtime.protocol import AlreadyDone, Claimed, ClaimPolicy, EngineSilent, FailedBefore, Held

T = 10.0
"""The lease of every claim here, in seconds of the world."""
LOG = AttemptLog("/out")
DIRECTORY = f"{LOG.directory}/"


class Fault(StrEnum):
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    LOST_ANSWER = "lost answer"
    REFUSED = "not applied"
    LATE = "applied late"
    PAUSE_BEFORE = "pause before"
    PAUSE_AFTER = "pause after"
    SUSPEND = "machine suspended"
    CRASH_BOTH = "owner and keeper crash"


STORE_FAULTS = tuple(Fault)


class BodyError(Exception):
    """What a body raises in the simulation."""


@dataclass(slots=True)
class Write:
    """The body writes one file."""

    last: bool


@dataclass(slots=True, eq=False)
class Process:
    """A process of a machine; a keeper is one as well."""

    world: "World"
    machine: int
    name: str
    is_alive: bool = True
    dies_at: float = float("inf")
    paused_until: float = float("-inf")
    stopped_until: float = float("-inf")
    keeper: "Process | None" = None
    task: "Task | None" = None
    leases: dict[str, "Lease"] = field(default_factory=dict)
    waiting: "Task | None" = None
    job: "Job | None" = None
    restart: Callable[[], None] | None = None

    def clock(self) -> float:
        return self.world.now + self.world.skews[self.machine]


@dataclass(slots=True, eq=False)
class Lease:
    """What a process believes of a claim that it holds, and what is true of its attempt."""

    claim: ClaimRecord
    attempt: str
    sent_at: float
    process: Process
    lost: str | None = None
    runs: bool = True
    did: set[str] = field(default_factory=set)

    def is_valid(self) -> bool:
        """Whether the owner may believe that the epoch is its own."""
        process = self.process
        return (
            self.runs
            and process.is_alive
            and self.lost is None
            and process.clock() < self.sent_at + 0.7 * self.claim.lease_s
        )


@dataclass(slots=True, eq=False)
class Task:
    """A program that runs in a process."""

    process: Process
    program: Generator[Any, Any, Any]
    wakes: int = 0


@dataclass(slots=True, eq=False)
class Job:
    """A job of the engine."""

    identity: JobIdentity
    claim: ClaimRecord
    ends: bool = False
    gone_at: float = float("inf")
    process: Process | None = None
    attempts: int = 0


@dataclass(eq=False)
class World:
    """One schedule: made of a seed and a plan of faults, run to its end."""

    seed: int
    workers: int = 2
    plan: dict[int, Fault] = field(default_factory=dict)
    """The fault at the n-th request to the store."""
    fault_rate: float = 0.0
    """Random faults for each request, until `faults_end`."""
    faults_end: float = 6 * T
    skew_s: float = 3600.0
    machines: int = 2
    body_writes: int = 4
    body_s: float = 0.5 * T
    fails: float = 0.0
    """How often a body raises."""
    checks_lease: bool = True
    jitter: bool = True
    forced: bool = False
    with_jobs: bool = False
    cluster: str = "sim"
    """That jobs run on; of `LOCAL_CLUSTER`, keepers and observers take them to die with their launcher."""
    preempts: float = 0.0
    unreachable: tuple[float, float] = (0.0, 0.0)
    """When the engine does not answer."""
    now: float = 0.0
    store: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    data_violations: int = 0
    requests: int = 0
    submissions: int = 0
    bodies: int = 0
    last_fault: float = 0.0
    finished: dict[int, str] = field(default_factory=dict)
    restarts: int = 0
    history: list[str] = field(default_factory=list)
    keeps_history: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.skews = [self.random.uniform(-self.skew_s, self.skew_s) for _ in range(self.machines)]
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.leases: list[Lease] = []
        self.processes: dict[str, Process] = {}
        self.jobs: dict[str, Job] = {}
        self.nonces = 0
        if self.forced:
            self._commit_epoch_one()

    def _commit_epoch_one(self) -> None:
        claim = ClaimRecord(1, "old", "m0", 1, "old-process", T, "then")
        self.store[LOG.claim(1)] = claim.to_bytes()
        self.store[LOG.end(1)] = EndRecord(1, EndKind.SUCCESS, "old", "then").to_bytes()

    # What happens when.

    def at(self, delay: float, act: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.queue, (self.now + delay, self.sequence, act))

    def run(self, limit: float = 60 * T) -> "World":
        """Runs until every worker has ended."""
        for number in range(self.workers):
            delay = self.random.uniform(0, 0.2 * T) if self.jitter else 0.1 * number
            self.at(delay, lambda number=number: self.start_launcher(number))
        while self.queue and len(self.finished) < self.workers:
            self.now, _, act = heapq.heappop(self.queue)
            if self.now > limit:
                break
            act()
        self.check()
        return self

    def latency(self) -> float:
        if not self.jitter:
            return 0.01
        slow = self.random.random()
        return self.random.uniform(0.001, 0.02) if slow < 0.97 else self.random.uniform(0.02, 0.15 * T)

    # Processes.

    def start_launcher(self, number: int) -> None:
        machine = number % self.machines
        process = self._process(machine, f"launcher-{number}")
        process.restart = lambda: self.start_launcher(number)
        program = job_launcher(self, process, number) if self.with_jobs else launcher(self, process, number)
        self._spawn(process, program)

    def _process(self, machine: int, name: str) -> Process:
        self.nonces += 1
        process = Process(self, machine, f"{name}-{self.nonces}")
        self.processes[process.name] = process
        return process

    def _spawn(self, process: Process, program: Generator[Any, Any, Any]) -> None:
        process.task = Task(process, program)
        self.resume(process.task, None)

    def kill(self, process: Process) -> None:
        if not process.is_alive:
            return
        self.note(f"{process.name} dies")
        process.is_alive = False
        if process.keeper is not None and process.keeper.waiting is not None:
            self._wake(process.keeper.waiting)
        if process.restart is not None:
            self.restarts += 1
            self.at(self.random.uniform(0.1 * T, T) if self.jitter else 0.3 * T, process.restart)
        if process.job is not None:
            self._job_process_ended(process.job)

    def note(self, text: str) -> None:
        if self.keeps_history:
            self.history.append(f"{self.now:8.3f} {text}")

    def nonce(self) -> str:
        self.nonces += 1
        return f"n{self.nonces}"

    def keep(self, process: Process, kept: KeptClaim) -> None:
        """The keeper's process begins to keep a claim."""
        keeper = Process(self, process.machine, f"keeper-of-{process.name}")
        process.keeper = keeper
        self._spawn(keeper, self._keeping(keeper, process, kept))

    def _keeping(self, keeper: Process, owner: Process, kept: KeptClaim) -> Generator[Any, Any, None]:
        keeper.leases = {kept.attempt: self._lease_of(owner, kept.attempt)}
        yield from heartbeat.keep(kept)
        keeper.is_alive = False

    def _lease_of(self, owner: Process, attempt: str) -> Lease:
        return owner.leases[attempt]

    # Programs and their operations.

    def resume(self, task: Task, value: Any, error: BaseException | None = None) -> None:
        """Lets a program go on, until it waits for something."""
        process = task.process
        while True:
            if not process.is_alive:
                return
            if process.paused_until > self.now:
                resume = functools.partial(self.resume, task, value, error)
                self.at(process.paused_until - self.now, resume)
                return
            try:
                operation = task.program.throw(error) if error is not None else task.program.send(value)
            except StopIteration:
                process.is_alive = process.restart is not None
                return
            error = None
            waits, value = self.perform(task, operation)
            if waits:
                return

    def perform(self, task: Task, operation: Any) -> tuple[bool, Any]:  # noqa: PLR0912
        """Answers at once (False, answer), or later through `resume`."""
        process = task.process
        match operation:
            case PutIfAbsent() | Put() | Get() | GetMany() | List():
                self._request(task, operation)
                return True, None
            case Now():
                return False, process.clock()
            case Pause(low, high):
                delay = self.random.uniform(low, high) if self.jitter else (low + high) / 2
                self.at(delay, lambda: self.resume(task, None))
                return True, None
            case ReadLease(nonce):
                lease = process.leases[nonce]
                return False, LeaseView(lease.claim.lease_s, lease.sent_at, lease.lost)
            case Say() | TellLost() | Report() | HandOver() | ReadyKeeper():
                self._tell(process, operation)
                return False, None
            case Act(what):
                self._act(process, what)
                self.at(self.latency(), lambda: self.resume(task, "digest"))
                return True, None
            case Write():
                self._write(process)
                return False, None
            case ProbeOwner(owner):
                return False, self._is_gone(process, owner)
            case AwaitOwner(nonce, seconds):
                self._await_owner(task, nonce, seconds)
                return True, None
            case KillOwner(why):
                lease = next(iter(process.leases.values()))
                end = self.store.get(LOG.end(lease.claim.epoch))
                is_own = end is not None and EndRecord.from_bytes(end, "end").nonce == lease.attempt
                if is_own and "somebody else has ended it" in why:
                    self.problem(f"{process.name} kills an owner that has ended its epoch itself")
                self.at(0.01, lambda: self.kill(lease.process))
                return False, True
            case AwaitDeath():
                self._await_death(task)
                return True, None
            case AskEngine(job):
                return False, self._engine_word(job)
            case Terminate(job):
                return False, self._terminate(job)
            case Submit(claim):
                self._submit(process, claim)
                return False, None
        raise AssertionError(f"no answer to {operation}")

    def _request(self, task: Task, operation: Any) -> None:
        process, number = task.process, self.requests
        self.requests += 1
        fault = self.plan.get(number)
        if fault is None and self.fault_rate and self.now < self.faults_end:
            fault = self.random.choice(STORE_FAULTS) if self.random.random() < self.fault_rate else None
        there, back = self.latency(), self.latency()
        if fault is None:
            self.at(there, lambda: self._deliver(task, operation, back))
            return
        self.last_fault = self.now
        self.note(f"{process.name}: {fault} at {_name(operation)} (request {number})")
        if fault is Fault.CRASH_BEFORE:
            self.kill(process)
            return
        if fault in (Fault.PAUSE_BEFORE, Fault.SUSPEND):
            self._pause(process, machine=fault is Fault.SUSPEND)
            # Decided before, and sent after.
            self.at(process.paused_until - self.now + there, lambda: self._deliver(task, operation, back))
            return
        unavailable = StoreUnavailableError("injected")
        match fault:
            case Fault.CRASH_AFTER:
                self.at(there, lambda: (self.apply(process, operation), self.kill(process)))
            case Fault.CRASH_BOTH:
                keeper = process.keeper
                self.at(there, lambda: (self.apply(process, operation), self._kill_both(process, keeper)))
            case Fault.LOST_ANSWER:
                self.at(there, lambda: (self.apply(process, operation), self.resume(task, None, unavailable)))
            case Fault.REFUSED:
                self.at(there, lambda: self.resume(task, None, unavailable))
            case Fault.LATE:
                late = self.random.uniform(0.05 * T, 1.5 * T) if self.jitter else 1.1 * T
                self.last_fault = max(self.last_fault, self.now + late)
                self.at(there + late, lambda: self.apply(process, operation))
                self.at(there, lambda: self.resume(task, None, unavailable))
            case Fault.PAUSE_AFTER:
                self._pause(process)
                self.at(there, lambda: self._deliver(task, operation, back))

    def _kill_both(self, process: Process, keeper: Process | None) -> None:
        if keeper is not None:
            keeper.is_alive = False
        self.kill(process)

    def _pause(self, process: Process, *, machine: bool = False) -> None:
        length = self.random.uniform(0.05 * T, 2.5 * T) if self.jitter else 1.4 * T
        self.last_fault = max(self.last_fault, self.now + length)
        until = self.now + length
        if not machine:
            process.paused_until = process.stopped_until = until
            return
        process.paused_until = until
        if process.keeper is not None:
            process.keeper.paused_until = until
        for lease in process.leases.values():
            lease.process.paused_until = until

    def _deliver(self, task: Task, operation: Any, back: float) -> None:
        result = self.apply(task.process, operation)
        self.at(back, lambda: self.resume(task, result))

    def apply(self, process: Process, operation: Any) -> Any:
        """The store does what it was asked."""
        store = self.store
        match operation:
            case Get(path):
                return store.get(path)
            case GetMany(paths):
                return [store.get(path) for path in paths]
            case List():
                return sorted(path[len(DIRECTORY) :] for path in store if path.startswith(DIRECTORY))
            case Put(path, content):
                if path.endswith((".claim", ".end", ".start", ".cancel")) and store.get(path) not in (None, content):
                    self.problem(f"{path} was overwritten by {process.name}")
                store[path] = content
                return None
            case PutIfAbsent(path, content):
                if path in store:
                    return False
                store[path] = content
                self.note(f"{process.name}: {_name(operation)} {content[:90]!r}")
                self._created(process, path, content)
                return True
        raise AssertionError(f"no such request {operation}")

    # What must hold.

    def problem(self, text: str) -> None:
        self.note(f"PROBLEM {text}")
        self.problems.append(f"{self.now:.3f}: {text}")

    def _created(self, process: Process, path: str, content: bytes) -> None:
        epoch = int(path[len(DIRECTORY) : len(DIRECTORY) + 6])
        if path.endswith(".claim"):
            self._check_claim(epoch, ClaimRecord.from_bytes(content, path))
        elif path.endswith(".end"):
            self._check_end(process, epoch, EndRecord.from_bytes(content, path))

    def _check_claim(self, epoch: int, claim: ClaimRecord) -> None:
        before = self.store.get(LOG.end(epoch - 1))
        if epoch > 1 and before is None:
            self.problem(f"epoch {epoch} was claimed while {epoch - 1} is open")
        is_success = before is not None and EndRecord.from_bytes(before, "end").kind is EndKind.SUCCESS
        if is_success and (claim.rerun_of is None or claim.rerun_of < epoch - 1):
            self.problem(f"epoch {epoch} was claimed over the success of {epoch - 1}")
        self._check_no_valid_owner(epoch - 1, "claimed over")

    def _check_no_valid_owner(self, epoch: int, how: str) -> None:
        for lease in self.leases:
            if lease.claim.epoch <= epoch and lease.is_valid():
                self.problem(f"epoch {lease.claim.epoch} was {how} while {lease.process.name} validly owns it")

    def _check_end(self, process: Process, epoch: int, end: EndRecord) -> None:
        owner = next((lease for lease in self.leases if lease.attempt == end.nonce), None)
        if end.kind is EndKind.SUCCESS:
            if owner is None or {"body", *FinishingAct} - owner.did:
                self.problem(f"epoch {epoch} succeeded though its attempt did not finish")
        elif end.kind is EndKind.FENCED:
            self._check_no_valid_owner(epoch, "fenced")
        if owner is not None and owner.runs and owner.process is not process and owner.process.is_alive:
            self.problem(f"epoch {epoch} was ended as {end.kind} by a keeper while its owner lives")

    def _act(self, process: Process, what: FinishingAct) -> None:
        lease = self._running(process)
        if lease.lost is not None:
            self.problem(f"{process.name} did {what} after it was told that its lease is lost")
        lease.did.add(what)

    def _write(self, process: Process) -> None:
        lease = self._running(process)
        others = [other for other in self.leases if other is not lease and other.is_valid()]
        if lease.is_valid() and others:
            self.problem(f"{process.name} and {others[0].process.name} are valid owners at once")
        if LOG.end(lease.claim.epoch) in self.store:
            self.data_violations += 1

    def _running(self, process: Process) -> Lease:
        return next(lease for lease in process.leases.values() if lease.runs)

    def check(self) -> None:
        """What must hold at the end."""
        for number in range(self.workers):
            if number not in self.finished:
                self.problem(f"worker {number} did not end")
        bound = self.last_fault + (7 if self.with_jobs else 4) * T + 3 * self.workers * self.body_s
        if self.now > bound:
            self.problem(f"it took until {self.now:.1f}, {self.now - self.last_fault:.1f} after the last fault")
        if "done" in self.finished.values() and not self.is_finished():
            self.problem("a worker took the output for finished, and it is not")

    def is_finished(self) -> bool:
        ends = [EndRecord.from_bytes(self.store[path], path) for path in sorted(self.store) if path.endswith(".end")]
        return bool(ends) and ends[-1].kind is EndKind.SUCCESS

    # Owners and keepers.

    def hold(self, process: Process, claimed: Claimed, *, awaits_start: bool = False) -> Lease:
        """A process has claimed: it believes so, and its keeper begins."""
        lease = Lease(claimed.claim, claimed.attempt, claimed.sent_at, process, runs=not awaits_start)
        self.leases.append(lease)
        process.leases[claimed.attempt] = lease
        kept = KeptClaim(LOG.output_path, claimed.claim, claimed.attempt, claimed.sent_at, awaits_start)
        self.keep(process, kept)
        return lease

    def forget(self, process: Process, lease: Lease) -> None:
        lease.runs = False
        process.leases.pop(lease.attempt, None)
        if process.keeper is not None and process.keeper.waiting is not None:
            self._wake(process.keeper.waiting)

    def _tell(self, keeper: Process, operation: Any) -> None:
        match operation:
            case Report(nonce, sent_at):
                keeper.leases[nonce].sent_at = sent_at
            case TellLost(nonce, why):
                self.note(f"{keeper.name}: lost: {why}")
                keeper.leases[nonce].lost = why
            case HandOver():
                self.note(f"{keeper.name}: its job has begun")
            case Say(message):
                self.note(f"{keeper.name}: {message}")

    def _await_owner(self, task: Task, nonce: str, seconds: float) -> None:
        task.process.waiting = task
        state = self._owner_state(task.process.leases[nonce])
        if state in (OwnerState.FORGOTTEN, OwnerState.DEAD):
            self.at(0.001, lambda: self._wake(task))
        wake = task.wakes
        self.at(max(0.0, seconds), lambda: self._wake(task) if task.wakes == wake else None)

    def _owner_state(self, lease: Lease) -> OwnerState:
        process = lease.process
        if not process.is_alive:
            return OwnerState.DEAD
        if lease.attempt not in process.leases:
            return OwnerState.FORGOTTEN
        return OwnerState.STOPPED if process.stopped_until > self.now else OwnerState.RUNS

    def _wake(self, task: Task) -> None:
        if task.process.waiting is not task:
            return
        task.process.waiting = None
        task.wakes += 1
        self.resume(task, self._owner_state(next(iter(task.process.leases.values()))))

    def _await_death(self, task: Task) -> None:
        owner = next(iter(task.process.leases.values())).process
        if owner.is_alive:
            self.at(0.01, lambda: self._await_death(task))
        else:
            self.at(0.01, lambda: self.resume(task, "was killed"))

    def _is_gone(self, observer: Process, owner: ClaimRecord | StartRecord) -> bool:
        process = self.processes.get(owner.process_nonce)
        if process is None or process.machine != observer.machine:
            return False
        if process is observer:
            attempt = owner.nonce if isinstance(owner, ClaimRecord) else owner.attempt
            return attempt not in process.leases
        return not process.is_alive and (process.keeper is None or not process.keeper.is_alive)

    def draft(self, process: Process, job: JobIdentity | None = None, rerun_of: int | None = None) -> ClaimRecord:
        return ClaimRecord(
            0, self.nonce(), f"m{process.machine}", 1, process.name, T, "now", rerun_of=rerun_of, job=job
        )

    # The engine of jobs.

    def _engine_word(self, identity: JobIdentity) -> EngineWord:
        if self.unreachable[0] <= self.now < self.unreachable[1]:
            return EngineWord.UNKNOWN
        job = self.jobs.get(identity.name)
        return EngineWord.ALIVE if job is not None and self.now < job.gone_at else EngineWord.GONE

    def _terminate(self, identity: JobIdentity) -> EngineWord:
        job = self.jobs.get(identity.name)
        if self._engine_word(identity) is EngineWord.ALIVE and job is not None and not job.ends:
            job.ends = True
            process = job.process
            self.at(0.02 * T, lambda: self._end_job(job, process))
        return self._engine_word(identity)

    def _end_job(self, job: Job, process: Process | None) -> None:
        if process is not None:
            self.kill(process)
        job.gone_at = min(job.gone_at, self.now + 0.02 * T)

    def _submit(self, process: Process, claim: ClaimRecord) -> None:
        assert claim.job is not None
        self.submissions += 1
        self.note(f"{process.name}: submits {claim.job.name}")
        job = Job(claim.job, claim)
        self.jobs[claim.job.name] = job
        pending = self.random.uniform(0.02 * T, 0.8 * T) if self.jitter else 0.2 * T
        self.at(pending, lambda: self._start_job(job))

    def _start_job(self, job: Job) -> None:
        if job.ends:
            job.gone_at = min(job.gone_at, self.now)
            return
        job.attempts += 1
        process = self._process(job.attempts % self.machines, f"job-{job.identity.name}")
        process.job, job.process = job, process
        self._spawn(process, job_process(self, process, job))
        if self.random.random() < self.preempts and self.now < self.faults_end:
            is_zombie = self.random.random() < 0.3
            self.at(self.random.uniform(0.0, 0.6 * T), lambda: self._preempt(job, process, is_zombie=is_zombie))

    def _preempt(self, job: Job, process: Process, *, is_zombie: bool) -> None:
        if not process.is_alive or job.ends or job.process is not process:
            return
        self.last_fault = self.now
        self.note(f"{process.name} is preempted{' and lives on' if is_zombie else ''}")
        process.job = None
        if not is_zombie:
            self.kill(process)
        self.at(self.random.uniform(0.02 * T, 0.3 * T), lambda: self._start_job(job))

    def _job_process_ended(self, job: Job) -> None:
        # The engine notices late.
        job.gone_at = min(job.gone_at, self.now + self.random.uniform(0.01 * T, 0.2 * T))

    def job_left(self, process: Process) -> None:
        """The job's process ends by itself."""
        process.is_alive = False
        if process.keeper is not None and process.keeper.waiting is not None:
            self._wake(process.keeper.waiting)
        if process.job is not None:
            self._job_process_ended(process.job)


def _name(operation: Any) -> str:
    path = getattr(operation, "path", None) or getattr(operation, "paths", None) or getattr(operation, "directory", "")
    return f"{type(operation).__name__} {str(path).replace(DIRECTORY, '')}"


def run_attempt(world: World, process: Process, claimed: Claimed) -> Generator[Any, Any, str]:
    """One attempt at the step: body, finish, end. What became of it."""
    lease = world.hold(process, claimed)
    world.bodies += 1
    world.note(f"{process.name}: body of epoch {claimed.claim.epoch}")
    end = EndRecord(claimed.claim.epoch, EndKind.SUCCESS, claimed.attempt, "now", {"fingerprint": "f"})
    fails = world.random.random() < world.fails
    try:
        for number in range(world.body_writes):
            if world.checks_lease:
                yield from protocol.require_lease(LOG, end)
            yield Write(number == world.body_writes - 1)
            yield Pause(0.0, 2 * world.body_s / world.body_writes)
        if fails:
            raise BodyError("no luck")
        lease.did.add("body")
        yield from protocol.finish(LOG, end)
    except LeaseLostError:
        lease.runs = False
        release = EndRecord(end.epoch, EndKind.RELEASED, end.nonce, "now")
        standing = yield from protocol.end_attempt(LOG, release)
        if standing.kind is EndKind.SUCCESS and standing.nonce == end.nonce:
            world.problem(f"{process.name} was told of a lost lease and had committed")
        world.forget(process, lease)
        return "lost"
    except BodyError:
        lease.runs = False
        failed = EndRecord(end.epoch, EndKind.FAILED, end.nonce, "now", error=StepFailure("BodyError", "no luck"))
        yield from protocol.end_attempt(LOG, failed)
        world.forget(process, lease)
        return "failed"
    lease.runs = False
    standing_bytes = world.store.get(LOG.end(end.epoch))
    if standing_bytes is None or EndRecord.from_bytes(standing_bytes, "end").nonce != end.nonce:
        world.problem(f"{process.name} believes that it committed, and it did not")
    world.forget(process, lease)
    return "done"


def launcher(world: World, process: Process, number: int) -> Generator[Any, Any, None]:
    """A launcher with one step, which it runs itself; it stays until the step is settled."""
    seen, waited_for = None, None
    rerun_of = 1 if world.forced else None
    while True:
        policy = ClaimPolicy(waited_for=waited_for, rerun_of=rerun_of)
        try:
            outcome = yield from protocol.claim_epoch(LOG, world.draft(process, rerun_of=rerun_of), policy, seen)
        except (StoreUnavailableError, LeaseLostError):
            yield Pause(T / 24, T / 12)
            continue
        match outcome:
            case AlreadyDone(epoch):
                if epoch and EndRecord.from_bytes(world.store[LOG.end(epoch)], "end").kind is not EndKind.SUCCESS:
                    world.problem(f"{process.name} took epoch {epoch} for a success")
                result = "done"
            case FailedBefore():
                result = "failed"
            case Held(claim, sighting):
                seen, waited_for = sighting, waited_for or claim.epoch
                yield Pause(T / 24, T / 12)
                continue
            case Claimed():
                result = yield from run_attempt(world, process, outcome)
                if result == "lost":
                    continue
            case EngineSilent():
                raise AssertionError("there is no engine here")
        process.restart = None
        world.finished[number] = result
        return


def job_launcher(world: World, process: Process, number: int) -> Generator[Any, Any, None]:
    """A launcher whose step is a job: it claims for it, submits, and watches."""
    seen, waited_for = None, None
    while True:
        name = f"job-{world.nonce()}"
        draft = world.draft(process, JobIdentity(name, world.cluster, "digest"))
        try:
            outcome = yield from protocol.claim_epoch(LOG, draft, ClaimPolicy(waited_for=waited_for), seen)
        except (StoreUnavailableError, LeaseLostError):
            yield Pause(T / 24, T / 12)
            continue
        match outcome:
            case AlreadyDone():
                result = "done"
            case FailedBefore():
                result = "failed"
            case Held(_, sighting):
                seen = sighting
                yield Pause(T / 24, T / 12)
                continue
            case EngineSilent():
                yield Pause(T / 24, T / 12)
                continue
            case Claimed():
                view = yield from submit_and_watch(world, process, outcome)
                if view is not JobView.SUCCEEDED:
                    yield Pause(T / 24, T / 12)
                    continue
                result = "done"
        process.restart = None
        world.finished[number] = result
        return


def submit_and_watch(world: World, process: Process, claimed: Claimed) -> Generator[Any, Any, JobView]:
    """From the claim for a job to its end."""
    lease = world.hold(process, claimed, awaits_start=True)
    try:
        is_submitted = yield from job_protocol.submit_job(LOG, claimed.claim)
    except StoreUnavailableError:
        # Nothing was submitted: the claim expires.
        is_submitted = False
    if not is_submitted:
        world.forget(process, lease)
        return JobView.GAVE_UP
    seen = None
    while True:
        try:
            watch = yield from job_protocol.watch_job(LOG, claimed.claim, seen)
        except StoreUnavailableError:
            yield Pause(T / 24, T / 12)
            continue
        if watch.view is not JobView.RUNS:
            world.forget(process, lease)
            return watch.view
        seen = watch.seen
        yield Pause(T / 24, T / 12)


def job_process(world: World, process: Process, job: Job) -> Generator[Any, Any, None]:
    """An attempt of a job."""
    seen = None
    while True:
        try:
            entry = yield from job_protocol.enter_job(LOG, world.draft(process, job.identity), ClaimPolicy(), seen)
        except (StoreUnavailableError, LeaseLostError):
            break
        if isinstance(entry, Held):
            seen = entry.seen
            yield Pause(T / 24, T / 12)
            continue
        if isinstance(entry, Left):
            world.note(f"{process.name} leaves: {entry.why}")
        if isinstance(entry, Claimed):
            try:
                result = yield from run_attempt(world, process, entry)
            except StoreUnavailableError:
                break
            if result == "lost":
                continue
        break
    world.job_left(process)
