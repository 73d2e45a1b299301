import json
from pathlib import Path
from typing import Any

import pytest

from experiments.lib.train.config import Layout
from experiments.steps.train import trained_model
from marin_trace import StepRef, lower, trace
from tests.training_pipeline import pipeline
from tests.training_runs import RECIPE, curve, run_python, write_tokenizer


def run_pipeline(root: Path) -> dict[str, Any]:
    done = run_python("-m", "tests.training_pipeline", str(root))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_pipeline_runs_and_a_second_run_imports_no_jax(corpus: Path, trained: Path) -> None:
    write_tokenizer(corpus / "tokenizer")
    first = run_pipeline(corpus)
    second = run_pipeline(corpus)
    assert (first["jax"], second["jax"]) == (True, False)
    assert second["artifacts"] == first["artifacts"]
    (output,) = (corpus / "outputs" / "checkpoints").iterdir()
    assert curve(output) == curve(trained / "model")
    assert first["artifacts"]["upload"]["files"] == ["loss_curve.png", "report.html", "report.md"]


@pytest.mark.parametrize("name", ["train", "evaluate", "export", "report"])
def test_importing_the_wiring_imports_nothing_heavy(name: str) -> None:
    heavy = ["jax", "numpy", "equinox", "optax", "orbax", "matplotlib", "safetensors", "tokenizers"]
    code = f"import sys, experiments.steps.{name}; print([name for name in {heavy} if name in sys.modules])"
    assert run_python("-c", code).stdout == "[]\n"


def test_the_graph_names_each_step() -> None:
    graph = trace(pipeline, "/data")
    assert [node.name for node in graph.nodes] == [
        "checkpoints/tiny",
        "evaluations/tiny",
        "baselines/tiny",
        "samples/tiny",
        "exports/tiny",
        "training_reports/tiny",
        "uploads/tiny",
    ]


def test_the_layout_is_no_part_of_the_model() -> None:
    def path(layout: Layout | None) -> str:
        store = StepRef.hardcoded("/data/train")
        specs = lower(trace(trained_model, "tiny", [(store, 1.0)], store, RECIPE, layout=layout), prefix="/p")
        return specs[0].output_path

    assert path(Layout(fsdp=8, recompute_layers=True)) == path(None)
