"""``python -m tests.soak [--only R4 …] [--store gcs …] [--seed N] …``: runs the series and prints one table."""

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from tests.soak import answers, fuzz, jobs, keeper_kills, kills, liars, races, simulated, takeovers, writers
from tests.soak.places import Store, served
from tests.soak.series import Outcome, Series, Terms

ALL = (
    *simulated.SERIES,
    *kills.SERIES,
    *keeper_kills.SERIES,
    *races.SERIES,
    *takeovers.SERIES,
    *answers.SERIES,
    *liars.SERIES,
    *writers.SERIES,
    *jobs.SERIES,
    *fuzz.SERIES,
    # The last: it fills what time is left.
    simulated.PAIRS,
)
FULL_MINUTES = 29.0
"""What the full numbers of trials take on two cores, at most: half an hour with what runs when the time is up."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table."""

    series: Series
    outcome: Outcome
    seed: int
    seconds: float

    def cells(self) -> tuple[str, ...]:
        violations = str(len(self.outcome.violations))
        what = f"{self.series.what}<br>{self.outcome.remarks}" if self.outcome.remarks else self.series.what
        return (
            self.series.id,
            self.series.store.value,
            what,
            self.outcome.trials,
            violations,
            str(self.seed),
            f"{self.seconds:.0f}",
        )


HEADINGS = ("id", "store", "what", "trials", "violations", "seed", "seconds")


def table_of(lines: Sequence[Line]) -> str:
    """As Markdown."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def run_series(series: Series, terms: Terms) -> Line:
    """Runs one, and says so."""
    print(f"{series.id} on {series.store}: {series.what}, seed {terms.seed}", flush=True)
    began = time.monotonic()
    with served(series.store) as place:
        outcome = series.run(replace(terms, place=place))
    line = Line(series, outcome, terms.seed, time.monotonic() - began)
    print(
        f"  {outcome.trials}; {len(outcome.violations)} violations; {outcome.remarks} ({line.seconds:.0f} s)",
        flush=True,
    )
    for violation in outcome.violations:
        print(f"  VIOLATION {violation}", flush=True)
    return line


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The long randomised series.")
    parser.add_argument("--only", nargs="+", choices=[series.id for series in ALL], metavar="ID", help="these series")
    parser.add_argument("--store", nargs="+", choices=list(Store), type=Store, help="the series on these stores")
    parser.add_argument("--seed", type=int, default=None, help="of all series; default: one at random")
    parser.add_argument("--minutes", type=float, default=None, help="for what is run; the numbers of trials follow")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--trial", type=int, default=None, help="only the trial with this number, where there are any")
    return parser.parse_args(argv)


def weight_of(series: Sequence[Series]) -> float:
    return sum(one.weight for one in series)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the soak: 0 if no law was broken."""
    options = parsed(argv)
    chosen = [
        series
        for series in ALL
        if (options.only is None or series.id in options.only)
        and (options.store is None or series.store in options.store)
    ]
    if not chosen:
        raise SystemExit("no series is run on these stores: those of the simulator use none")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10_000)
    base = Path(tempfile.mkdtemp(prefix="marin-trace-soak-"))
    full_minutes = FULL_MINUTES * weight_of(chosen) / weight_of(ALL)
    minutes = full_minutes if options.minutes is None else options.minutes
    began, share = time.monotonic(), minutes / full_minutes
    # What a series leaves of its time is the next one's.
    ends = accumulate(60 * minutes * series.weight / weight_of(chosen) for series in chosen)
    lines: list[Line] = []
    for series, end in zip(chosen, ends, strict=True):
        directory = base / f"{series.id}-{series.store}"
        directory.mkdir()
        terms = Terms(seed, directory, share, options.workers, began + end, options.trial)
        lines.append(run_series(series, terms))
    print(f"\n{table_of(lines)}\n")
    load = f"load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores"
    print(f"{time.monotonic() - began:.0f} s in all, {load}; to repeat: --seed {seed}")
    if not any(line.outcome.violations for line in lines):
        shutil.rmtree(base)
        return 0
    print(f"what the trials left: {base}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    # Leftovers of what was killed are warned of by design.
    logging.getLogger("marin_trace").setLevel(logging.ERROR)
    # As after Ctrl-C the trials that run are brought to their end, and leave no process behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
