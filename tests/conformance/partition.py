"""A partition by the kernel: ``unshare -rn python -m tests.conformance.partition STORE DIRECTORY``.

In a network namespace of its own, where loopback is all there is, a launcher of `waiting_experiment` loses the network
in the middle of its step, for longer than its lease; once it is back, another one goes on. Prints, as JSON, how the
two ended and how each attempt at the first step did.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.conformance.waiting_experiment import SIGNS_VARIABLE
from tests.soak.checks import output_at
from tests.soak.places import Store, served
from tests.soak.site import Launcher, Site, await_exit, busy, until

LIMIT_S = 60.0


def set_network(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def await_file(path: Path) -> None:
    for _ in until(LIMIT_S * busy()):
        if path.exists():
            return
    raise TimeoutError(path)


def await_text(launcher: Launcher, text: str) -> None:
    for _ in until(LIMIT_S * busy()):
        if text in launcher.text() or not launcher.lives:
            return
    raise TimeoutError(text)


def partitioned(site: Site, signs: Path) -> dict[str, object]:
    environment = {SIGNS_VARIABLE: str(signs)}
    first = site.launch("--lease_seconds", 2, environment=environment)
    await_file(signs / f"began-{first.pid}")
    set_network("down")
    await_text(first, "has lost its lease")
    set_network("up")
    code = await_exit(first, LIMIT_S * busy())
    has_ended = (signs / f"ended-{first.pid}").exists()
    (signs / "may-end").touch()
    second = await_exit(site.launch("--lease_seconds", 2, machine=1, environment=environment), LIMIT_S * busy())
    site.fetch()
    (path,) = site.prefix.glob("first-*")
    ends = output_at(str(path)).ends
    return {
        "first": code,
        "says": "has lost its lease: no heartbeat was acknowledged" in first.text(),
        "first ended its body": has_ended,
        "second": second,
        "attempts": [ends[epoch].kind.value for epoch in sorted(ends)],
    }


def main() -> None:
    store, directory = Store(sys.argv[1]), Path(sys.argv[2])
    set_network("up")
    signs = directory / "signs"
    signs.mkdir()
    with served(store) as place, place.site(directory / "site") as site:
        site.script = "tests/conformance/waiting_experiment.py"
        print(json.dumps(partitioned(site, signs)))


if __name__ == "__main__":
    main()
