"""The same model as `train_tiny_model_cpu`, on a GPU: what changes when steps run somewhere else?

Nothing but where they run. The recipe is the same, so the outputs are: what one of the two has made, the other finds
finished. The text is curated and tokenised on machines with processors, the model trained and measured on one with a
GPU; what reads your files and writes the page stays in the launcher.

    python experiments/tutorials/train_tiny_model_gpu.py --dry_run
    python experiments/tutorials/train_tiny_model_gpu.py
    python experiments/tutorials/train_tiny_model_gpu.py --cluster ray --prefix gs://bucket/me --gpu H100

Needs JAX for the GPU (`pip install 'jax[cuda12]'`) where the steps run, and for a cluster a prefix that its machines
reach. Where there is no GPU the run is refused before anything starts.

Expected: the figures of `train_tiny_model_cpu` up to rounding.
"""

from dataclasses import dataclass, replace

from experiments.tutorials.hello_corpus import corpus_name, located
from experiments.tutorials.train_tiny_model_cpu import Places, TinyModelFlags, show, train_tiny_model
from marin_trace import ResourceConfig, executor_main, parse_flags


@dataclass(frozen=True)
class GpuFlags(TinyModelFlags):
    """The flags of this experiment: those of `train_tiny_model_cpu`, and where to run."""

    gpu: str = "any"
    """Its type, as the cluster names it."""


def places_of(flags: GpuFlags) -> Places:
    """Processors for the text, one GPU for the model."""
    gpu = ResourceConfig.with_gpu(flags.gpu, cpu=2, ram="8g")
    return Places(tokens=ResourceConfig.with_cpu(flags.workers, ram="4g"), training=gpu, measuring=gpu)


def main() -> None:
    """Runs the experiment and prints what came of it."""
    flags = parse_flags(GpuFlags)
    flags = replace(flags, source=located(flags.source))
    refs = train_tiny_model(corpus_name(flags.source), flags, places_of(flags))
    show(executor_main(steps=[refs], description="A tiny language model, on a GPU"), refs)


if __name__ == "__main__":
    main()
