"""The printed graph of every experiment, as ``tests/golden/experiments`` keeps it.

Write the files anew with

    python -m tests.golden.graphs
"""

import platform
from collections.abc import Callable
from pathlib import Path

from experiments.tutorials.checkpoint_watch import WatchFlags, checkpoint_watch
from experiments.tutorials.data_mixture import MixtureFlags, data_mixture, mixtures_of
from experiments.tutorials.hello_corpus import HelloFlags, hello_corpus
from experiments.tutorials.speedrun.llama_tiny import run_llama_tiny
from experiments.tutorials.sweep_learning_rate import SweepFlags, sweep_learning_rate
from experiments.tutorials.train_tiny_model_cpu import TinyModelFlags, train_tiny_model
from experiments.tutorials.train_tiny_model_gpu import GpuFlags
from experiments.tutorials.train_tiny_model_gpu import places_of as gpu_places
from experiments.tutorials.train_tiny_model_tpu import TpuFlags
from experiments.tutorials.train_tiny_model_tpu import places_of as tpu_places
from marin_trace import Graph, trace

DIRECTORY = Path(__file__).with_name("experiments")
SOURCE = "/fixed/source"
PARTS = {"code": "/fixed/code", "prose": "/fixed/prose"}


def version_free(graph: Graph) -> str:
    """A graph as text, without the version of the Python that runs."""
    return str(graph).replace(repr(platform.python_version()), "'PYTHON'")


GPU, TPU = GpuFlags(source=SOURCE), TpuFlags(source=SOURCE, tpu="v5p-16")

GRAPHS: dict[str, Callable[[], str]] = {
    "tutorials/hello_corpus": lambda: str(trace(hello_corpus, "fixed", HelloFlags(source=SOURCE))),
    "tutorials/train_tiny_model_cpu": lambda: str(trace(train_tiny_model, "fixed", TinyModelFlags(source=SOURCE))),
    "tutorials/train_tiny_model_gpu": lambda: str(trace(train_tiny_model, "fixed", GPU, gpu_places(GPU))),
    "tutorials/train_tiny_model_tpu": lambda: str(trace(train_tiny_model, "fixed", TPU, tpu_places(TPU))),
    "tutorials/sweep_learning_rate": lambda: str(trace(sweep_learning_rate, "fixed", SweepFlags(source=SOURCE))),
    "tutorials/data_mixture": lambda: str(
        trace(data_mixture, "fixed", PARTS, mixtures_of(("code", "prose"), [0.75, 0.5]), MixtureFlags())
    ),
    "tutorials/checkpoint_watch": lambda: str(trace(checkpoint_watch, "fixed", WatchFlags(source=SOURCE))),
    "tutorials/speedrun/llama_tiny": lambda: version_free(trace(run_llama_tiny)),
}
"""By the experiment's path below ``experiments/``, without suffix."""


def golden_file(experiment: str) -> Path:
    """Where the printed graph of an experiment lies."""
    return DIRECTORY / f"{experiment}.txt"


if __name__ == "__main__":
    for name, graph in GRAPHS.items():
        golden_file(name).parent.mkdir(parents=True, exist_ok=True)
        golden_file(name).write_text(f"{graph()}\n")
