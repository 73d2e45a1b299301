"""Evaluates models."""

from dataclasses import dataclass

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class EvalTaskConfig:
    name: str
    num_fewshot: int
    task_alias: str | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """One evaluation of one model."""

    evaluator: str
    model_name: str | None
    model_path: str
    evaluation_path: str
    evals: list[EvalTaskConfig]
    max_eval_instances: int | None = None
    discover_latest_checkpoint: bool = False


@dataclass(frozen=True)
class ComparisonConfig:
    """Several evaluations side by side."""

    evaluations: dict[str, str]
    output_path: str
    metric: str = "macro_loss"


def evaluate(config: EvaluationConfig) -> None:
    finish("evaluate", config)


def compare_evaluations(config: ComparisonConfig) -> None:
    finish("compare_evaluations", config)
