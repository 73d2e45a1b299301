"""The same model as `train_tiny_model_cpu`, on a TPU slice: one machine of it, or several that work together.

The recipe is the same, so the outputs are: what one of the two has made, the other finds finished. A type with several
machines (`v5p-16` has two) trains in one process on each of them, and the batch is split over all their chips; the
model is measured on one machine.

    python experiments/tutorials/train_tiny_model_tpu.py --dry_run --cluster fray://CLUSTER
    python experiments/tutorials/train_tiny_model_tpu.py --cluster fray://CLUSTER --prefix gs://bucket/me
    python experiments/tutorials/train_tiny_model_tpu.py --cluster fray://CLUSTER --prefix gs://bucket/me --tpu v5p-16

Needs JAX for TPUs (`pip install 'jax[tpu]'`) where the steps run. The batch has eight sequences, so a slice of this
tutorial has eight chips at most. Where there is no TPU the run is refused before anything starts.

Expected: the figures of `train_tiny_model_cpu` up to rounding.
"""

from dataclasses import dataclass, replace

from experiments.lib.train.config import Layout
from experiments.tutorials.hello_corpus import corpus_name, located
from experiments.tutorials.train_tiny_model_cpu import Places, TinyModelFlags, show, train_tiny_model
from marin_trace import ResourceConfig, executor_main, parse_flags


@dataclass(frozen=True)
class TpuFlags(TinyModelFlags):
    """The flags of this experiment: those of `train_tiny_model_cpu`, and where to run."""

    tpu: str = "v5p-8"
    """Type of the slice to train on."""

    measure_on: str = "v5p-8"
    """Type of the slice to evaluate and write on: one machine."""


def places_of(flags: TpuFlags) -> Places:
    """Processors for the text, a slice for the training, one machine of TPUs to measure."""
    slice_of_tpus = ResourceConfig.with_tpu(flags.tpu)
    return Places(
        tokens=ResourceConfig.with_cpu(flags.workers, ram="4g"),
        training=slice_of_tpus,
        measuring=ResourceConfig.with_tpu(flags.measure_on),
        layout=Layout(distributed=slice_of_tpus.processes > 1),
    )


def main() -> None:
    """Runs the experiment and prints what came of it."""
    flags = parse_flags(TpuFlags)
    flags = replace(flags, source=located(flags.source))
    refs = train_tiny_model(corpus_name(flags.source), flags, places_of(flags))
    show(executor_main(steps=[refs], description="A tiny language model, on TPUs"), refs)


if __name__ == "__main__":
    main()
