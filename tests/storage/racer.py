"""Races processes for one file: `racer.py DIRECTORY PROCESSES ROUNDS` prints the number of winners of each round."""

import os
import sys

from marin_trace.storage.local_store import LocalControlStore


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
