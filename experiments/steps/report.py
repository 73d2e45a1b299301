"""The step that writes the page about a trained model."""

from collections.abc import Mapping

from experiments.lib.report.training import ReportInput, TrainingReportConfig
from experiments.lib.report.training import write_training_report as _write_training_report
from experiments.lib.train.config import TrainRecipe
from marin_trace import StepRef, deferred, output, step

write_training_report = deferred(_write_training_report)


@step(name="training_reports/{name}")
def training_report(
    name: str,
    title: str,
    *,
    recipe: TrainRecipe,
    model: StepRef,
    evaluation: StepRef,
    baselines: StepRef,
    samples: StepRef,
    inputs: Mapping[str, StepRef],
) -> StepRef:
    """A Markdown and an HTML page about a trained model; artifact: `TrainingReport`.

    Args:
        name: Of the report.
        title: Of the page.
        recipe: What the model was trained with.
        model: The trained model.
        evaluation: Its figures.
        baselines: The figures it has to beat.
        samples: What it writes.
        inputs: What it was made from, by names for people.
    """
    return write_training_report(
        TrainingReportConfig(
            title=title,
            recipe=recipe,
            training=model.artifact,
            evaluation=evaluation.artifact,
            baselines=baselines.artifact,
            samples=samples.artifact,
            inputs=tuple(ReportInput(name=label, path=ref) for label, ref in {**inputs, "model": model}.items()),
            model_path=model,
            output_path=output(),
        )
    )
