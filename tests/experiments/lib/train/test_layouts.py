"""Eight simulated devices train what one trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training_runs import ROOT, curve, run_python

TRAIN = """
import json, sys
from pathlib import Path
from experiments.lib.train.config import Layout
from experiments.lib.train.train import train_model
from tests.training_runs import curve, train_config

root, output, *layouts = Path(sys.argv[1]), sys.argv[2], *json.loads(sys.argv[3])
for number, layout in enumerate(layouts):
    train_model(train_config(root, output=f"{output}{number}", layout=Layout(**layout)))
"""

RTOL = 2e-4
"""Sums of another order in each of 12 updates; measured: 2e-5."""


def test_eight_devices_train_what_one_does(corpus: Path, trained: Path) -> None:
    layouts = json.dumps([{"fsdp": 1}, {"fsdp": 0}])
    done = run_python("-c", TRAIN, str(corpus), "split", layouts, devices=8)
    assert done.returncode == 0, done.stderr
    expected = curve(trained / "model")
    np.testing.assert_allclose(curve(corpus / "split0"), expected, rtol=RTOL)
    np.testing.assert_allclose(curve(corpus / "split1"), expected, rtol=RTOL)


@pytest.mark.slow
def test_two_axes_and_a_resume_on_other_devices(corpus: Path, trained: Path) -> None:
    """A training that is begun on eight devices goes on on one."""
    from experiments.lib.train.train import train_model
    from tests.training_runs import train_config

    kill = "from tests.training_runs import arrange_kill; arrange_kill('while saving')"
    layouts = json.dumps([{"fsdp": 2, "gradient_accumulation": 1}])
    done = run_python("-c", kill + TRAIN, str(corpus), "mesh", layouts, devices=8)
    assert done.returncode < 0, done.stderr
    train_model(train_config(corpus, output="mesh0"))
    np.testing.assert_allclose(curve(corpus / "mesh0"), curve(trained / "model"), rtol=RTOL)


PROCESS = (
    """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[4], 2, int(sys.argv[5]))
"""
    + TRAIN
)


@pytest.mark.slow
def test_two_processes_train_what_one_does(corpus: Path, trained: Path) -> None:
    """As on two hosts: each reads its rows, each writes its part of a checkpoint, one writes the metrics."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    layouts = json.dumps([{"fsdp": 2, "distributed": True}])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(corpus), "hosts", layouts, address, str(rank)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    np.testing.assert_allclose(curve(corpus / "hosts0"), curve(trained / "model"), rtol=RTOL)
