"""A gang on Ray: one actor under the job's name, which keeps as many `JobActor`s as the job has processes.

Ray ties them to it: when it is ended, so are they, and their placement group is given back. A process that fails is
the gang's failure: the others are ended, and it is told. A process that Ray loses, with its machine, restarts the
whole gang, in new places and under a new attempt's name.
"""

import asyncio
import inspect
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, final

from marin_trace.workers.client import JobStatus
from marin_trace.workers.gang import GangSeat
from marin_trace.workers.ray_job import HEARD_S, UNHEARD_S, JobActor, JobCall, JobOutcome, MemberPlace

__all__ = ["GangActor", "GangShape"]

logger = logging.getLogger(__name__)

_RESTARTS: Final = 10
"""How often a gang is begun again because Ray has lost one of its processes."""
_LOOK_S: Final = 0.5
"""Between two looks at whether the gang is to stop."""
_RESERVATION_S: Final = 5.0
"""For how long Ray waits for a free slice before it says that there is none."""
_LOSS_S: Final = 1.0
"""Within how long Ray tells of a worker that has died, beside one that has failed because of that."""
_STOP_S: Final = 30.0
"""For how long members are given to end before they are killed: their own grace, and the way there."""


@final
@dataclass(frozen=True, slots=True)
class GangShape:
    """Where the processes of a gang are to be placed."""

    size: int
    bundle: Mapping[str, float]
    """What each of them asks for."""
    labels: Mapping[str, str]
    """What the labels of a node must be."""
    strategy: str
    """Ray's: ``STRICT_SPREAD``, ``PACK``."""
    tpu: tuple[str, str, int] | None = None
    """Topology, generation and number of TPU slices, where Ray can place a slice as a whole."""


@final
class GangActor:
    """All processes of one job."""

    def __init__(self, call: JobCall, *payload: bytes, shape: GangShape) -> None:
        """Starts the gang as soon as there is room for all of it.

        Args:
            call: What each process runs.
            payload: See `JobActor`.
            shape: How many there are, and where.
        """
        self._call = call
        self._payload = payload
        self._shape = shape
        self._ray: Any = import_module("ray")
        self._member_class = self._ray.remote(JobActor)
        self._members: list[Any] = []
        self._begun: Future[None] = Future()
        self._outcome: Future[JobOutcome] = Future()
        self._is_heard = threading.Event()
        self._is_stopped = threading.Event()
        self._this_actor: Any = self._ray.get_runtime_context().current_actor
        threading.Thread(target=self._run, name="gang").start()

    async def begun(self) -> None:
        """Answers when all processes run, for the first time."""
        await asyncio.shield(asyncio.wrap_future(self._begun))

    async def lost(self) -> None:
        """See `JobActor.lost`. A member that is lost is this actor's to replace."""
        await asyncio.Event().wait()

    async def is_over(self) -> bool:
        """Whether the gang has ended."""
        return self._outcome.done()

    async def outcome(self) -> JobOutcome:
        """How the gang ended, once it has."""
        # Shielded: a caller that gives up must not cancel what others wait for.
        outcome = await asyncio.shield(asyncio.wrap_future(self._outcome))
        self._is_heard.set()
        return outcome

    async def logs(self) -> str:
        """The tail of what rank 0 has written."""
        return await self._members[0].logs.remote() if self._members else ""

    async def stop(self) -> None:
        """Ends all processes; answers when they are gone."""
        self._is_stopped.set()
        await asyncio.shield(asyncio.wrap_future(self._outcome))

    def _run(self) -> None:
        outcome = self._attempts()
        if not self._begun.done():
            self._begun.set_result(None)
        self._outcome.set_result(outcome)
        if self._is_heard.wait(UNHEARD_S):
            threading.Event().wait(HEARD_S)
        self._ray.kill(self._this_actor, no_restart=True)

    def _attempts(self) -> JobOutcome:
        """Runs the gang until it has ended by itself, was stopped, or was lost too often."""
        lost: Exception | None = None
        for _ in range(_RESTARTS + 1):
            group = None
            try:
                group = self._placed()
                if group is None:
                    return JobOutcome(JobStatus.STOPPED)
                return self._attempt(group)
            except self._ray.exceptions.RayError as error:
                logger.warning(f"{self._call.name}: a process of the gang was lost, all begin again: {error}")
                lost = error
            except Exception as error:  # noqa: BLE001 - the launcher is told; here nobody would see it
                return JobOutcome(JobStatus.FAILED, failure=f"{self._call.name} cannot be placed: {error}")
            finally:
                self._dismiss(group)
        return JobOutcome(JobStatus.FAILED, failure=f"{self._call.name} was lost {_RESTARTS + 1} times: {lost}")

    def _placed(self) -> "_Group | None":
        """Room for the whole gang, however long that takes; None: it was stopped meanwhile."""
        while not self._is_stopped.is_set():
            try:
                group = _reserved(self._ray, self._shape)
            except TimeoutError:
                # All slices are in use. Ray waits for one in the foreground only.
                continue
            ready = group.placement_group.ready()
            while not self._is_stopped.is_set():
                if self._ray.wait([ready], timeout=_LOOK_S)[0]:
                    self._ray.get(ready)
                    return group
            group.release()
        return None

    def _attempt(self, group: "_Group") -> JobOutcome:
        members = self._members = [self._member(group, bundle) for bundle in range(self._shape.size)]
        places: list[MemberPlace] = self._ray.get([member.place.remote() for member in members])
        order = sorted(range(len(members)), key=lambda n: n if (worker := places[n].tpu_worker) is None else worker)
        if self._shape.tpu is not None and self._shape.tpu[2] > 1:
            # Several slices count their machines alike: as they were placed is slice by slice.
            order = list(range(len(members)))
        members = self._members = [members[n] for n in order]
        attempt = os.urandom(8).hex()
        seats = [GangSeat(rank, len(members), attempt, places[n].host) for rank, n in enumerate(order)]
        self._ray.get([member.start.remote(seat) for member, seat in zip(members, seats, strict=True)])
        if not self._begun.done():
            self._begun.set_result(None)
        return self._watched(members)

    def _member(self, group: "_Group", bundle: int) -> Any:
        strategy = import_module("ray.util.scheduling_strategies").PlacementGroupSchedulingStrategy(
            placement_group=group.placement_group, placement_group_bundle_index=bundle
        )
        asked = {**self._shape.bundle}
        options = {"num_cpus": asked.pop("CPU", 0), "num_gpus": asked.pop("GPU", 0), "memory": asked.pop("memory", 0)}
        placed = self._member_class.options(**options, resources=asked, scheduling_strategy=strategy, max_restarts=0)
        return placed.remote(replace(self._call, name=f"{self._call.name}-{bundle}"), *self._payload, waits=True)

    def _watched(self, members: list[Any]) -> JobOutcome:
        """Waits until all have succeeded, one has not, or the gang is stopped."""
        ranks: dict[Any, int] = {member.outcome.remote(): rank for rank, member in enumerate(members)}
        left, outcomes = list(ranks), dict[int, JobOutcome]()
        while left and not self._is_stopped.is_set():
            done, left = self._ray.wait(left, timeout=_LOOK_S)
            for reference in done:
                outcome: JobOutcome = self._ray.get(reference)
                if outcome.status is not JobStatus.SUCCEEDED:
                    self._raise_losses(left)
                    logger.warning(f"{self._call.name}: rank {ranks[reference]} has failed, the others are ended")
                    return outcome
                outcomes[ranks[reference]] = outcome
        return outcomes[0] if not left else JobOutcome(JobStatus.STOPPED)

    def _raise_losses(self, left: list[Any]) -> None:
        """Raises what Ray tells of a process that was lost: where one was, the failure of another is no verdict."""
        until = time.monotonic() + _LOSS_S
        while left and (rest := until - time.monotonic()) > 0:
            done, left = self._ray.wait(left, timeout=rest)
            self._ray.get(done)

    def _dismiss(self, group: "_Group | None") -> None:
        """Ends whatever still runs, and gives the room back. A member that was lost cannot be asked."""
        members, self._members = self._members, []
        asked = [member.stop.remote() for member in members]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=_STOP_S)
        for member in members:
            self._ray.kill(member)
        if group is not None:
            group.release()


@final
@dataclass(frozen=True, slots=True)
class _Group:
    """Room that was set aside."""

    placement_group: Any
    whole_slice: Any = None
    """Ray's reservation of TPU slices."""

    def release(self) -> None:
        """Gives the room back."""
        ray: Any = import_module("ray")
        with suppress(ray.exceptions.RayError):
            if self.whole_slice is not None:
                self.whole_slice.shutdown()
            else:
                ray.util.remove_placement_group(self.placement_group)


def _reserved(ray: Any, shape: GangShape) -> _Group:
    """Asks for room; of whole slices of TPUs, where this Ray can place those."""
    if shape.tpu is not None and find_spec("ray.util.tpu") is not None:
        topology, generation, slices = shape.tpu
        reserve: Any = import_module("ray.util.tpu").SlicePlacementGroup
        # Older releases wait for a free slice without end.
        has_limit = "head_reservation_timeout_s" in inspect.signature(reserve).parameters
        limit = {"head_reservation_timeout_s": _RESERVATION_S} if has_limit else {}
        asked = {"resources_per_bundle": dict(shape.bundle), "num_slices": slices, "strategy": "STRICT_SPREAD"}
        whole = reserve(topology, generation, **asked, **limit)
        return _Group(whole.placement_group, whole)
    selectors = {"bundle_label_selector": [dict(shape.labels)] * shape.size} if shape.labels else {}
    bundles = [dict(shape.bundle)] * shape.size
    return _Group(ray.util.placement_group(bundles, strategy=shape.strategy, **selectors))
