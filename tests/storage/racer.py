"""Races for one file: of threads here, and of processes in a process of its own.

`racer.py DIRECTORY PROCESSES ROUNDS` prints the number of winners of each round.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.local_store import LocalControlStore


def winners_among_processes(directory: Path, processes: int, rounds: int) -> list[int]:
    """How many processes won each round, on a local disk."""
    command = [sys.executable, __file__, str(directory), str(processes), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
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


def compete(directory: str, number: int, rounds: int, start: int, result: int) -> None:
    store = LocalControlStore()
    for round_number in range(rounds):
        os.read(start, 1)
        content = f"{number}".encode()
        won = store.put_if_absent(f"{directory}/{round_number}/claim", content)
        os.write(result, b"w" if won else b"l")


def main() -> None:
    directory, processes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    starts = [os.pipe() for _ in range(processes)]
    results = os.pipe()
    for number in range(processes):
        if os.fork() == 0:
            compete(directory, number, rounds, starts[number][0], results[1])
            os._exit(0)
    for _ in range(rounds):
        for _, start in starts:
            os.write(start, b"!")
        answers = b""
        while len(answers) < processes:
            answers += os.read(results[0], processes)
        print(answers.count(b"w"))


if __name__ == "__main__":
    main()
