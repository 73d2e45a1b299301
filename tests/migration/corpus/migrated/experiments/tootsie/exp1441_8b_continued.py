"""The 8B baseline goes on, from a checkpoint of another experiment, while that one still runs."""

from experiments.datasets.mixtures import dclm_mixture_with_validation
from experiments.defaults import default_eval, default_train
from experiments.llama import llama_8b
from experiments.tootsie.exp859_baseline_8b import llama_8b_tootsie_phase2, phase_2_mixture, tootsie_8b_train
from marin_trace import executor_main, step
import dataclasses


@step(name="tootsie/exp1441_8b_continued/all")
def run_exp1441_8b_continued():
    """Continue the 8B baseline."""
    # The run of the other file need not have ended: a checkpoint is enough.
    starting_point = (llama_8b_tootsie_phase2() / "checkpoints" / "step-730000").nonblocking()

    continued_train = dataclasses.replace(
        tootsie_8b_train, num_train_steps=1_320_000, initialize_from_checkpoint_path=starting_point
    )

    continued = default_train(
        name="llama-8b-tootsie-continued",
        tokenized=phase_2_mixture(),
        model_config=llama_8b,
        train_config=continued_train,
    )

    control = default_train(
        name="llama-8b-tootsie-control",
        tokenized=dclm_mixture_with_validation(),
        model_config=llama_8b,
        train_config=continued_train,
    )

    for model in (continued, control):
        default_eval(model)


if __name__ == "__main__":
    executor_main(steps=[run_exp1441_8b_continued()], description="Continue the 8B baseline")
