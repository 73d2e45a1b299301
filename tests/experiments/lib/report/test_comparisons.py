"""Pages that compare models: of several learning rates, and of several mixtures."""

from pathlib import Path

import pytest

from experiments.lib.evaluate.config import ModelEvaluation
from experiments.lib.report.mixtures import MixtureReportConfig, MixtureRun, compare_mixtures, mixture_lines
from experiments.lib.report.sweep import SweepConfig, SweepRun, compare_learning_rates, sweep_lines
from experiments.lib.train.config import TrainedModel
from experiments.lib.train.metrics import MetricsLog, StepLine


def sweep_run(root: Path, rate: float, loss: float) -> SweepRun:
    path = root / f"model-{rate:g}"
    MetricsLog(
        str(path / "metrics.jsonl"),
        [StepLine(1, loss=4.0, learning_rate=rate, grad_norm=1.0), StepLine(9, loss, rate, 1.0, validation_loss=loss)],
    ).write()
    training = TrainedModel(9, 100, 1.0, 50, 32, loss, 9, loss, loss, 1000.0)
    return SweepRun(learning_rate=rate, training=training, model_path=str(path))


def sweep_config(root: Path, losses: dict[float, float]) -> SweepConfig:
    runs = tuple(sweep_run(root, rate, loss) for rate, loss in losses.items())
    return SweepConfig("Rates", runs, str(root / "out"))


def test_the_rate_with_the_lowest_validation_loss_is_the_best(tmp_path: Path) -> None:
    comparison = compare_learning_rates(sweep_config(tmp_path, {0.1: 3.5, 0.001: 3.0, 0.01: 2.5}))
    assert (comparison.best_learning_rate, comparison.best_validation_loss) == (0.01, 2.5)
    assert sweep_lines(comparison) == [
        "learning rate 0.001: validation loss 3.0000",
        "learning rate 0.01: validation loss 2.5000 (best)",
        "learning rate 0.1: validation loss 3.5000",
    ]


def test_the_page_of_a_sweep_names_the_best_and_lies_beside_its_plot(tmp_path: Path) -> None:
    comparison = compare_learning_rates(sweep_config(tmp_path, {0.01: 2.5, 0.001: 3.0}))
    page = (tmp_path / "out" / "sweep.md").read_text()
    assert sorted(comparison.files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "The best learning rate is 0.01." in page
    assert page.index("| 0.001 | 3 |") < page.index("| 0.01 | 2.5 |")
    assert "](sweep.png)" in page
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("losses", "end"), [({0.1: 2.0, 0.2: 3.0}, "smallest"), ({0.1: 3.0, 0.2: 2.0}, "largest")])
def test_a_best_rate_at_the_end_of_the_range_is_pointed_out(
    tmp_path: Path, losses: dict[float, float], end: str
) -> None:
    lines = sweep_lines(compare_learning_rates(sweep_config(tmp_path, losses)))
    assert lines[-1] == f"the best is the {end} of them: try rates beyond it"


def test_equal_sweeps_are_equal_files(tmp_path: Path) -> None:
    config = sweep_config(tmp_path, {0.1: 2.0, 0.2: 3.0})
    compare_learning_rates(config)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    compare_learning_rates(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


def evaluations(**bits: float) -> dict[str, ModelEvaluation]:
    return {corpus: ModelEvaluation(9, 3, 1000, 400, value, 2.0) for corpus, value in bits.items()}


def mixture_config(root: Path, **second: float) -> MixtureReportConfig:
    runs = {
        "even": MixtureRun({"code": 1.0, "prose": 1.0}, evaluations(code=2.0, prose=3.0)),
        "mostly-code": MixtureRun({"code": 3.0, "prose": 1.0}, evaluations(**second)),
    }
    return MixtureReportConfig("Mixtures", runs, str(root))


def test_each_corpus_has_a_model_that_predicts_it_best(tmp_path: Path) -> None:
    comparison = compare_mixtures(mixture_config(tmp_path, prose=3.5, code=1.5))
    assert comparison.best == {"code": "mostly-code", "prose": "even"}
    assert mixture_lines(comparison) == [
        "bits per byte on      code     prose",
        "even                 2.000     3.000",
        "mostly-code          1.500     3.500",
    ]


def test_the_page_of_mixtures_has_figures_and_shares(tmp_path: Path) -> None:
    compare_mixtures(mixture_config(tmp_path, code=1.5, prose=3.5))
    page = (tmp_path / "mixtures.md").read_text()
    assert "| mostly-code | 1.5 | 3.5 |" in page
    assert "| mostly-code | 75% | 25% |" in page
    assert "code: 3 documents, 1,000 bytes" in page


def test_models_measured_on_different_corpora_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mostly-code was measured on \['code'\], and others on \['code', 'prose'\]"):
        compare_mixtures(mixture_config(tmp_path, code=1.5))


def test_nothing_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one training"):
        compare_learning_rates(sweep_config(tmp_path, {}))
    with pytest.raises(ValueError, match="there is no model"):
        compare_mixtures(MixtureReportConfig("Mixtures", {}, str(tmp_path)))
