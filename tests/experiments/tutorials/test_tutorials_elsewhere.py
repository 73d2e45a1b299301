"""The tutorials that train elsewhere: the same steps as on this machine, refused where they cannot run."""

import re
from pathlib import Path

import pytest

from experiments.tutorials.train_tiny_model_cpu import TinyModelFlags, train_tiny_model
from experiments.tutorials.train_tiny_model_gpu import GpuFlags
from experiments.tutorials.train_tiny_model_gpu import places_of as gpu_places
from experiments.tutorials.train_tiny_model_tpu import TpuFlags
from experiments.tutorials.train_tiny_model_tpu import places_of as tpu_places
from marin_trace import StepSpec, lower, trace
from marin_trace.workers.machine import this_machine
from tests.experiments.tutorials.test_training_tutorials import SHORT, file_named, run_script, run_well
from tests.workers.iris_site import SLICE_TYPE, IrisCluster


def specs(flags: TinyModelFlags, places: object = None) -> list[StepSpec]:
    return lower(trace(train_tiny_model, "text", flags, places))


def resources_of(found: list[StepSpec]) -> dict[str, str]:
    return {spec.name.partition("/")[0]: str(spec.options.resources) for spec in found if spec.options.resources}


def test_where_steps_run_is_no_part_of_what_they_make() -> None:
    gpu, tpu = GpuFlags(gpu="H100"), TpuFlags(tpu="v5p-32")
    here = specs(TinyModelFlags())
    there = specs(gpu, gpu_places(gpu)), specs(tpu, tpu_places(tpu))
    assert [[spec.fingerprint for spec in found] for found in there] == [[spec.fingerprint for spec in here]] * 2
    assert resources_of(here) == {}
    text = dict.fromkeys(("curated", "tokenizers", "tokenized"), "cpu=2 ram=4g")
    model = ("checkpoints", "evaluations", "samples")
    assert resources_of(there[0]) == {**text, **dict.fromkeys(model, "gpu=H100 cpu=2 ram=8g")}
    assert resources_of(there[1]) == {
        **text,
        "checkpoints": "tpu=v5p-32",
        "evaluations": "tpu=v5p-8",
        "samples": "tpu=v5p-8",
    }


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_a_machine_without_the_device_refuses_at_once_and_names_the_flag(kind: str, tmp_path: Path) -> None:
    if getattr(this_machine(), f"{kind}s"):
        pytest.skip(f"this machine has a {kind.upper()}")
    done = run_script(f"train_tiny_model_{kind}", "--dry_run", prefix=tmp_path / "outputs")
    assert done.returncode == 1
    assert f"this machine has no {kind.upper()}" in done.stderr
    assert "hint: --cluster ray or --cluster fray" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("fray")
def test_a_slice_of_an_iris_cluster_trains_as_one_process_does(iris: IrisCluster, tmp_path: Path) -> None:
    corpus = tmp_path / "apples"
    corpus.mkdir()
    for document in range(24):
        lines = [" ".join(f"apple{(document * 37 + line * word) % 211}" for word in range(8)) for line in range(20)]
        (corpus / f"{document}.txt").write_text("\n".join(lines) + "\n")
    flags = ("--source", corpus, *SHORT)
    cluster = ("--cluster", f"fray://{iris.address}", "--tpu", SLICE_TYPE)
    there = run_well("train_tiny_model_tpu", *flags, *cluster, prefix=tmp_path / "there")
    here = run_well("train_tiny_model_cpu", *flags, prefix=tmp_path / "here")
    figure = re.compile(r"^held-out documents: (\d\.\d{3}) bits per byte", re.MULTILINE)
    measured = [float(found[1]) for text in (there, here) if (found := figure.search(text))]
    assert measured[0] == pytest.approx(measured[1], abs=0.002)
    assert file_named("report", there).relative_to(tmp_path / "there") == file_named("report", here).relative_to(
        tmp_path / "here"
    )
