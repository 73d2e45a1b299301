"""Scheduling decisions alone: what is wanted, what may start, whom a failure skips. No I/O, no clock, no threads.

Steps are known by a key (the output path). Every walk is iterative, so that a chain of 100,000 steps is no deeper than
one of two. A completion costs O(1) for each dependent that it frees.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, final

__all__ = ["Schedule", "find_cycle", "post_order", "wanted"]

K = TypeVar("K", bound=Hashable)


def post_order(roots: Iterable[K], children: Callable[[K], Iterable[K]]) -> list[K]:
    """Everything that the roots reach, children before parents where there is no cycle, each once.

    Args:
        roots: Where to begin, in order.
        children: What a key reaches in one step, in order.
    """
    order: list[K] = []
    seen: set[K] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(children(root)))]
        while stack:
            key, remaining = stack[-1]
            child = next((candidate for candidate in remaining if candidate not in seen), None)
            if child is None:
                order.append(key)
                stack.pop()
                continue
            seen.add(child)
            stack.append((child, iter(children(child))))
    return order


def find_cycle(deps: Mapping[K, Collection[K]]) -> list[K] | None:
    """A chain of keys, each waiting for the next, that ends where it begins; None where there is none."""
    waiting = {key: sum(dep in deps for dep in deps[key]) for key in deps}
    dependents = _dependents(deps)
    free = [key for key, count in waiting.items() if count == 0]
    while free:
        key = free.pop()
        del waiting[key]
        for dependent in dependents[key]:
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                free.append(dependent)
    if not waiting:
        return None
    return _walk_to_repeat(next(iter(waiting)), waiting, deps)


def _walk_to_repeat(start: K, stuck: Mapping[K, int], deps: Mapping[K, Collection[K]]) -> list[K]:
    # Every stuck key waits for a stuck key: following one of them must come back to a key that was passed.
    position: dict[K, int] = {}
    chain: list[K] = []
    key = start
    while key not in position:
        position[key] = len(chain)
        chain.append(key)
        key = next(dep for dep in deps[key] if dep in stuck)
    return [*chain[position[key] :], key]


def wanted(roots: Iterable[K], *, is_finished: Callable[[K], bool], needs: Callable[[K], Iterable[K]]) -> set[K]:
    """What must run so that the roots are finished: nothing upstream of a finished key, unless another needs it.

    Args:
        roots: What was asked for.
        is_finished: Whether a key's output can be read as it is.
        needs: What an unfinished key brings into the run.

    Returns:
        The unfinished keys to run.
    """
    chosen: set[K] = set()
    pending = list(roots)
    while pending:
        key = pending.pop()
        if key in chosen or is_finished(key):
            continue
        chosen.add(key)
        pending.extend(needs(key))
    return chosen


@final
class Schedule(Generic[K]):
    """Which step may start next. Not thread-safe: the runner's own thread asks and tells.

    Invariants: a key is handed out at most once (but for `put_back`), and only after all its dependencies succeeded; a
    failure skips exactly what depends on it, through any number of steps.
    """

    __slots__ = ("_dependents", "_first", "_lane_of", "_ready", "_settled", "_urgent", "_waiting")

    def __init__(
        self, deps: Mapping[K, Collection[K]], *, first: Collection[K] = (), lane_of: Mapping[K, str] | None = None
    ) -> None:
        """Plans a run.

        Args:
            deps: For each key to run, what it waits for, each once; what is not a key itself is not waited for.
            first: Keys that go before all others once they are ready.
            lane_of: Which of several queues a key waits in, so that a full one blocks no other; default: one queue, "".
        """
        self._waiting = {key: sum(dep in deps for dep in upstream) for key, upstream in deps.items()}
        self._dependents = _dependents(deps)
        self._first = frozenset(first)
        self._settled: set[K] = set()
        self._lane_of = lane_of or {}
        self._urgent: dict[str, deque[K]] = defaultdict(deque)
        self._ready: dict[str, deque[K]] = defaultdict(deque)
        for key, count in self._waiting.items():
            if count == 0:
                self._queue(key)

    @property
    def is_over(self) -> bool:
        """Whether every key has succeeded, failed or been skipped."""
        return len(self._settled) == len(self._waiting)

    def peek(self, lane: str = "") -> K | None:
        """The key that `take` would hand out; None where nothing in this lane may start."""
        for queue in (self._urgent[lane], self._ready[lane]):
            while queue and queue[0] in self._settled:  # it was failed before it could start
                queue.popleft()
            if queue:
                return queue[0]
        return None

    def take(self, lane: str = "") -> K:
        """Hands out the lane's next key; the caller has seen by `peek` that there is one."""
        return (self._urgent[lane] or self._ready[lane]).popleft()

    def put_back(self, key: K) -> None:
        """Takes back a key that was handed out and could not start."""
        self._queue(key)

    def succeed(self, key: K) -> None:
        """Settles a key; what waited for it alone becomes ready."""
        self._settled.add(key)
        for dependent in self._dependents[key]:
            self._waiting[dependent] -= 1
            if self._waiting[dependent] == 0 and dependent not in self._settled:
                self._queue(dependent)

    def fail(self, key: K) -> list[K]:
        """Settles a key and everything that depends on it.

        Returns:
            The dependents that were skipped by this failure, nearest first.
        """
        self._settled.add(key)
        skipped: list[K] = []
        pending = deque(self._dependents[key])
        while pending:
            dependent = pending.popleft()
            if dependent in self._settled:
                continue
            self._settled.add(dependent)
            skipped.append(dependent)
            pending.extend(self._dependents[dependent])
        return skipped

    def _queue(self, key: K) -> None:
        queues = self._urgent if key in self._first else self._ready
        queues[self._lane_of.get(key, "")].append(key)


def _dependents(deps: Mapping[K, Collection[K]]) -> dict[K, Sequence[K]]:
    dependents: dict[K, list[K]] = {key: [] for key in deps}
    for key, upstream in deps.items():
        for dep in upstream:
            if dep in dependents:
                dependents[dep].append(key)
    return dict(dependents)
