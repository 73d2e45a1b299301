"""How far does a Llama of 1.3 million parameters come in 2,000 steps?

The shortest form of an experiment: a step for the data, an entry step that calls the defaults, and a recipe as data.
It has no flags of its own; those of every run, such as `--dry_run` and `--prefix`, are there.

    python experiments/tutorials/speedrun/llama_tiny.py --dry_run
    python experiments/tutorials/speedrun/llama_tiny.py

Expected: nearly three times the steps of `train_tiny_model_cpu`, with twice its vocabulary, so a longer training and
fewer bits per byte on held-out files; by how much is what the run tells.
"""

from experiments.lib.llama.config import LlamaConfig
from experiments.lib.report.training import HTML_FILE, summary_lines
from experiments.lib.train.config import OptimizerConfig, TrainRecipe
from experiments.steps.defaults import default_speedrun, default_tokenize
from experiments.tutorials.train_tiny_model_cpu import source_documents
from marin_trace import StepRef, executor_main, step

LLAMA_TINY = TrainRecipe(
    model=LlamaConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=4),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=100),
    steps=2_000,
    compute_dtype="float32",
)


@step(name="speedrun/llama_tiny/tokens")
def llama_tiny_tokens() -> StepRef:
    """The source files of the standard library as tokens, a twentieth of them held out."""
    return default_tokenize("stdlib-4k", source_documents("stdlib", "stdlib"), vocab_size=4096, workers=2)


@step(name="speedrun/llama_tiny/all")
def run_llama_tiny() -> dict[str, StepRef]:
    """From the data to a page about the model."""
    return default_speedrun("llama_tiny", llama_tiny_tokens(), LLAMA_TINY, prompts=("def main():\n",))


def main() -> None:
    """Runs the experiment and prints what came of it."""
    refs = run_llama_tiny()
    run = executor_main(steps=[refs], description="A Llama of 1.3 million parameters")
    if run.dry_run or not run.includes(refs["report"]):
        return
    print()
    for line in summary_lines(*(run.artifact(refs[name]) for name in ("model", "evaluation", "baselines"))):
        print(line)
    print(f"report: {run.output_path(refs['report'])}/{HTML_FILE}")


if __name__ == "__main__":
    main()
