"""Races for one file: of threads here, and of processes in a process of its own.

`racer.py BASE PROCESSES ROUNDS` prints the number of winners of each round.
"""

import importlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marin_trace.storage.control_store import control_store_for


def winners_among_processes(base: str, processes: int, rounds: int) -> list[int]:
    """How many processes won each round, below a base of any store that processes share."""
    command = [sys.executable, __file__, base, str(processes), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    return [int(count) for count in shown.stdout.split()]


def winners_among_threads(base: str, threads: int, rounds: int) -> list[int]:
    """How many threads won each round, below a base of any store."""
    store, barrier = control_store_for(base), threading.Barrier(threads)

    def race(number: int) -> list[bool]:
        won: list[bool] = []
        for round_number in range(rounds):
            barrier.wait()
            won.append(store.put_if_absent(f"{base}/{round_number}/claim", f"{number}".encode()))
        return won

    with ThreadPoolExecutor(threads) as pool:
        return [sum(round_winners) for round_winners in zip(*pool.map(race, range(threads)), strict=True)]


def compete(base: str, number: int, rounds: int, start: int, result: int) -> None:
    # After the fork: each process has connections of its own.
    store = control_store_for(base)
    store.get(f"{base}/warm")
    os.write(result, b"r")
    for round_number in range(rounds):
        os.read(start, 1)
        content = f"{number}".encode()
        won = store.put_if_absent(f"{base}/{round_number}/claim", content)
        os.write(result, b"w" if won else b"l")


def main() -> None:
    base, processes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Before the fork: sixteen processes need not each import it.
    if library := {"gs": "gcsfs", "s3": "s3fs"}.get(base.partition("://")[0]):
        importlib.import_module(library)
    starts = [os.pipe() for _ in range(processes)]
    results = os.pipe()
    for number in range(processes):
        if os.fork() == 0:
            compete(base, number, rounds, starts[number][0], results[1])
            os._exit(0)
    os.close(results[1])
    answers_of(results[0], processes)
    for _ in range(rounds):
        for _, start in starts:
            os.write(start, b"!")
        print(answers_of(results[0], processes).count(b"w"))


def answers_of(results: int, processes: int) -> bytes:
    answers = b""
    while len(answers) < processes:
        read = os.read(results, processes)
        assert read, "a process has ended"
        answers += read
    return answers


if __name__ == "__main__":
    main()
