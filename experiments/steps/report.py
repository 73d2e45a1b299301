"""The steps that write pages: about a trained model, and about several that are compared."""

from collections.abc import Mapping

from experiments.lib.report.mixtures import MixtureReportConfig, MixtureRun
from experiments.lib.report.mixtures import compare_mixtures as _compare_mixtures
from experiments.lib.report.sweep import SweepConfig, SweepRun
from experiments.lib.report.sweep import compare_learning_rates as _compare_learning_rates
from experiments.lib.report.training import ReportInput, TrainingReportConfig
from experiments.lib.report.training import write_training_report as _write_training_report
from experiments.lib.train.config import TrainRecipe
from marin_trace import StepRef, deferred, output, step

write_training_report = deferred(_write_training_report)
compare_learning_rates = deferred(_compare_learning_rates)
compare_mixtures = deferred(_compare_mixtures)


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


@step(name="sweeps/{name}")
def learning_rate_comparison(name: str, title: str, models: Mapping[float, StepRef]) -> StepRef:
    """A page about trainings that differ in their learning rate, by that rate; artifact: `SweepComparison`."""
    return compare_learning_rates(
        SweepConfig(
            title=title,
            runs=tuple(
                SweepRun(learning_rate=rate, training=model.artifact, model_path=model)
                for rate, model in models.items()
            ),
            output_path=output(),
        )
    )


@step(name="mixtures/{name}")
def mixture_comparison(
    name: str,
    title: str,
    weights: Mapping[str, Mapping[str, float]],
    evaluations: Mapping[str, Mapping[str, StepRef]],
) -> StepRef:
    """A page about models of several mixtures on several corpora; artifact: `MixtureComparison`.

    Args:
        name: Of the comparison.
        title: Of the page.
        weights: Of each corpus, for each model by its name.
        evaluations: On each corpus, for each model: outputs of :func:`experiments.steps.evaluate.model_evaluation`.
    """
    return compare_mixtures(
        MixtureReportConfig(
            title=title,
            runs={
                model: MixtureRun(
                    weights=dict(weights[model]),
                    evaluations={corpus: evaluation.artifact for corpus, evaluation in by_corpus.items()},
                )
                for model, by_corpus in evaluations.items()
            },
            output_path=output(),
        )
    )
