"""The printed graph of every experiment, as ``tests/golden/experiments`` keeps it.

Write the files anew with

    python -m tests.golden.graphs
"""

from collections.abc import Callable
from pathlib import Path

from experiments.tutorials.hello_corpus import HelloFlags, hello_corpus
from marin_trace import Graph, trace

DIRECTORY = Path(__file__).with_name("experiments")

GRAPHS: dict[str, Callable[[], Graph]] = {
    "tutorials/hello_corpus": lambda: trace(hello_corpus, "fixed", HelloFlags(source="/fixed/source")),
}
"""By the experiment's path below ``experiments/``, without suffix."""


def golden_file(experiment: str) -> Path:
    """Where the printed graph of an experiment lies."""
    return DIRECTORY / f"{experiment}.txt"


if __name__ == "__main__":
    for name, graph in GRAPHS.items():
        golden_file(name).parent.mkdir(parents=True, exist_ok=True)
        golden_file(name).write_text(f"{graph()}\n")
