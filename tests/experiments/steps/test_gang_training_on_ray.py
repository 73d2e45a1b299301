"""A training step whose resources ask for two machines of a Ray cluster trains what one process does."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments.lib.mixture import MixtureConfig
from experiments.lib.train.config import Layout
from experiments.steps.train import trained_model
from marin_trace import ResourceConfig, StepRef, executor_main
from tests.experiments.steps.test_gang_training import RTOL
from tests.training_runs import RECIPE, curve
from tests.workers.ray_clusters import Node, ray_cluster, tpu_node

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture
def cluster() -> Iterator[None]:
    """Two machines of what Ray takes for a TPU slice; JAX is told to use their processors."""
    slice_nodes = [tpu_node("slice-a", worker, tpu_type="v5p-16", topology="2x2x2") for worker in (0, 1)]
    with ray_cluster([Node(), *slice_nodes]):
        yield


@pytest.mark.usefixtures("cluster")
def test_a_slice_of_two_machines_trains_what_one_process_does(corpus: Path, trained: Path) -> None:
    def ref(name: str) -> StepRef:
        return StepRef.hardcoded(str(corpus / name))

    tpu = ResourceConfig.with_tpu("v5p-16", cpu=1)
    gang = trained_model.with_options(resources=tpu, env_vars={"JAX_PLATFORMS": "cpu"})
    paths = {"train": ref("train"), "more": ref("more")}
    mixture = MixtureConfig(paths=paths, weights={"train": 3.0, "more": 1.0})
    model = gang("tiny", mixture, ref("validation"), RECIPE, layout=Layout(fsdp=1))
    report = executor_main(steps=[model], argv=["--prefix", str(corpus / "outputs-ray"), "--cluster", "ray"])
    output = report.outcomes[0].output_path
    np.testing.assert_allclose(curve(Path(output)), curve(trained / "model"), rtol=RTOL)
    (log,) = Path(output, ".executor").glob("000001.log-1")
    assert "devices: data=" in log.read_text()
