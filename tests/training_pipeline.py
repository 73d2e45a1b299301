"""Every step about a model, on the corpus of `tests.training_runs`: ``python -m tests.training_pipeline ROOT``.

Prints, as JSON, the artifacts and whether JAX was imported.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from experiments.lib.mixture import MixtureConfig
from experiments.steps.evaluate import baseline_evaluation, model_evaluation, model_samples
from experiments.steps.export import exported_model, uploaded_directory
from experiments.steps.report import training_report
from experiments.steps.train import trained_model
from marin_trace import StepRef, executor_main, step
from tests.training_runs import RECIPE


@step(name="all")
def pipeline(root: str) -> dict[str, StepRef]:
    """From token stores to an uploaded report."""
    train, more, heldout, tokenizer = (
        StepRef.hardcoded(f"{root}/{name}") for name in ("train", "more", "validation", "tokenizer")
    )
    mixture = MixtureConfig(paths={"train": train, "more": more}, weights={"train": 3.0, "more": 1.0})
    model = trained_model("tiny", mixture, heldout, RECIPE)
    evaluation = model_evaluation("tiny", model, heldout)
    baselines = baseline_evaluation("tiny", train, heldout, tokenizer, order=3)
    samples = model_samples("tiny", model, tokenizer, ["ABC"], max_new_tokens=8)
    export = exported_model("tiny", model, tokenizer)
    report = training_report(
        "tiny",
        "A tiny model",
        recipe=RECIPE,
        model=model,
        evaluation=evaluation,
        baselines=baselines,
        samples=samples,
        inputs={"train": train},
    )
    return {
        "training": model,
        "evaluation": evaluation,
        "export": export,
        "report": report,
        "upload": uploaded_directory("tiny", report, f"{root}/uploaded"),
    }


def main() -> None:
    """Runs the pipeline."""
    root = Path(sys.argv[1])
    refs = pipeline(str(root))
    run = executor_main(steps=[refs], argv=["--prefix", str(root / "outputs")])
    artifacts = {name: asdict(run.artifact(ref)) for name, ref in refs.items()}
    print(json.dumps({"artifacts": artifacts, "jax": "jax" in sys.modules}))


if __name__ == "__main__":
    main()
