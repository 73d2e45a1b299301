"""A training step whose resources ask for two processes trains what one does."""

from pathlib import Path

import numpy as np
import pytest

from experiments.lib.mixture import MixtureConfig
from experiments.lib.train.config import Layout
from experiments.steps.train import trained_model
from marin_trace import ResourceConfig, StepRef, executor_main
from tests.training_runs import RECIPE, curve

RTOL = 2e-4
"""As of `tests/experiments/lib/train/test_layouts.py`."""


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 2], ids=["data-parallel", "fsdp"])
def test_two_processes_of_a_step_train_what_one_does(corpus: Path, trained: Path, fsdp: int) -> None:
    def ref(name: str) -> StepRef:
        return StepRef.hardcoded(str(corpus / name))

    gang = trained_model.with_options(resources=ResourceConfig(cpu=1, replicas=2))
    paths = {"train": ref("train"), "more": ref("more")}
    mixture = MixtureConfig(paths=paths, weights={"train": 3.0, "more": 1.0})
    model = gang("tiny", mixture, ref("validation"), RECIPE, layout=Layout(fsdp=fsdp))
    report = executor_main(steps=[model], argv=["--prefix", str(corpus / f"outputs{fsdp}"), "--cluster", "local"])
    assert report.outcomes[0].epoch == 1
    output = report.outcomes[0].output_path
    np.testing.assert_allclose(curve(Path(output)), curve(trained / "model"), rtol=RTOL)
    (log,) = Path(output, ".executor").glob("000001.log-1")
    assert "devices: data=" in log.read_text()
