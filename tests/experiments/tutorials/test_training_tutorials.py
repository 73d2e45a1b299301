"""The tutorials that train, as a user runs them: scripts in processes of their own, with the smallest of models."""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "experiments" / "tutorials"

MODEL = "--train.model.hidden_size 16 --train.model.intermediate_size 32 --train.model.num_hidden_layers 1"
TINY = [*MODEL.split(), "--train.model.num_attention_heads", "2", "--vocab_size", "300"]
SHORT = [*TINY, "--train.minutes", "0.0125"]
"""Three steps."""

WITHOUT_JAX = """\
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("imported:", [name for name in ("jax", "numpy", "matplotlib", "tokenizers") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two small corpora; the outputs of the tutorials go beside them, and share their tokens."""
    root = tmp_path_factory.mktemp("workplace")
    for number, corpus in enumerate(("apples", "pears")):
        (root / corpus).mkdir()
        draw = random.Random(number)
        for document in range(24):
            lines = [" ".join(f"{corpus}{draw.randrange(200)}" for _ in range(8)) for _ in range(20)]
            (root / corpus / f"{document}.txt").write_text("\n".join(lines) + "\n")
    return root


def environment(**variables: object) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}


def run_script(name: str, *flags: object, prefix: Path, without_jax: bool = False) -> subprocess.CompletedProcess[str]:
    start = ["-c", WITHOUT_JAX] if without_jax else []
    return subprocess.run(
        [sys.executable, *start, str(SCRIPTS / f"{name}.py"), *map(str, flags)],
        env=environment(MARIN_PREFIX=prefix),
        cwd=prefix.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_well(name: str, *flags: object, prefix: Path, without_jax: bool = False) -> str:
    done = run_script(name, *flags, prefix=prefix, without_jax=without_jax)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_as_a_user(name: str, *flags: object, workplace: Path, outputs: str = "outputs") -> str:
    """A dry run, a run and a second run; returns what the run printed."""
    absent = workplace / f"absent-{name.replace('/', '-')}"
    assert "would run" in run_well(name, *flags, "--dry_run", prefix=absent)
    assert not absent.exists()
    first = run_well(name, *flags, prefix=workplace / outputs)
    second = run_well(name, *flags, prefix=workplace / outputs, without_jax=True)
    assert second.endswith("imported: []\n")
    assert second.removesuffix("imported: []\n") == first
    return first


def file_named(label: str, stdout: str) -> Path:
    match = re.search(rf"^{label}: +(\S+)", stdout, re.MULTILINE)
    assert match is not None, stdout
    return Path(match[1])


def test_a_tiny_model_is_trained_and_reported(workplace: Path) -> None:
    stdout = run_as_a_user("train_tiny_model_cpu", "--source", workplace / "apples", *SHORT, workplace=workplace)
    assert re.search(r"^[\d,]+ parameters, 6,144 tokens in 3 steps ", stdout, re.MULTILINE)
    assert re.search(
        r"^held-out documents: \d\.\d{3} bits per byte, perplexity \d+\.\d \(step \d\)$", stdout, re.MULTILINE
    )
    page = file_named("report", stdout).read_text()
    assert "<h1>The model tiny-apples</h1>" in page
    assert file_named("plot", stdout).read_bytes().startswith(b"\x89PNG")


def test_a_sweep_names_the_best_of_its_rates(workplace: Path) -> None:
    flags = ("--source", workplace / "apples", *SHORT, "--learning_rates", "1e-4", "1e-2")
    stdout = run_as_a_user("sweep_learning_rate", *flags, workplace=workplace)
    assert re.findall(r"^learning rate (\S+): validation loss \d\.\d{4}(| \(best\))$", stdout, re.MULTILINE) == [
        ("0.0001", ""),
        ("0.01", " (best)"),
    ]
    assert "The best learning rate is 0.01." in file_named("report", stdout).read_text()
    assert file_named("plot", stdout).read_bytes().startswith(b"\x89PNG")


def test_models_of_mixtures_are_measured_on_each_corpus(workplace: Path) -> None:
    sources = ("--sources", workplace / "apples", workplace / "pears", "--shares", "0.9", "0.1")
    stdout = run_as_a_user("data_mixture", *sources, *SHORT, workplace=workplace)
    rows = re.findall(r"^(\S+-\d+-\S+-\d+) +(\d+\.\d+) +(\d+\.\d+)$", stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["apples-90-pears-10", "apples-10-pears-90"]
    assert "# Mixtures of apples and pears" in file_named("report", stdout).read_text()


def test_a_training_is_watched_while_it_runs(workplace: Path) -> None:
    flags = ("--source", workplace / "apples", *SHORT, "--checkpoints", 3)
    stdout = run_as_a_user("checkpoint_watch", *flags, workplace=workplace)
    steps = re.findall(r"^step +(\d+): (\d\.\d{3}) bits per byte", stdout, re.MULTILINE)
    assert [step for step, _ in steps] == ["1", "2", "3"]
    assert len(file_named("figures", stdout).read_text().splitlines()) == 3


def test_the_watcher_of_a_training_that_fails_ends_with_an_error(workplace: Path) -> None:
    # So large a rate leaves nothing but NaN after the first update.
    flags = ("--source", workplace / "apples", *SHORT, "--train.learning_rate", "1e38", "--patience_s", "3")
    done = run_script("checkpoint_watch", *flags, prefix=workplace / "outputs")
    assert done.returncode == 1
    assert "training diverged by step" in done.stderr
    assert "TrainingStalledError: no checkpoint " in done.stderr
    assert "2 of 6 steps failed" in done.stderr


def test_the_speedrun_says_what_it_would_do_and_writes_nothing(workplace: Path) -> None:
    stdout = run_well("speedrun/llama_tiny", "--dry_run", prefix=workplace / "absent")
    assert not (workplace / "absent").exists()
    assert "checkpoints/llama_tiny" in stdout
    assert "10 would run" in stdout


def killed_when(pattern: str, name: str, *flags: object, prefix: Path) -> list[str]:
    """Runs a tutorial and kills it as an operating system would, once it logs what matches; returns what it logged."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, flags)]
    logged: list[str] = []
    with subprocess.Popen(
        command, env=environment(MARIN_PREFIX=prefix), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in iter(process.stderr.readline, ""):
            logged.append(line)
            if re.search(pattern, line):
                process.kill()
    assert process.returncode == -signal.SIGKILL, "".join(logged)
    return logged


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_from_its_last_checkpoint(workplace: Path, tmp_path: Path) -> None:
    flags = ("--source", workplace / "apples", *TINY, "--train.minutes", "0.5")
    # Checkpoints come after steps 40, 80 and 120; a later line of the log is well behind the one of 40.
    killed_when(r"step 90/120", "train_tiny_model_cpu", *flags, prefix=tmp_path / "killed")
    done = run_script("train_tiny_model_cpu", *flags, prefix=tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    # The baselines do not wait for the training, and may have been counted beside it.
    assert re.search(r"\b[45] found finished", done.stderr)
    assert re.search(r"120 steps; going on after step (40|80)\n", done.stderr)
    whole = run_well("train_tiny_model_cpu", *flags, prefix=tmp_path / "whole")
    heldout = re.compile(r"^held-out documents: .*$", re.MULTILINE)
    assert heldout.findall(done.stdout) == heldout.findall(whole) != []


@pytest.mark.parametrize(
    "name",
    [
        "train_tiny_model_cpu",
        "train_tiny_model_gpu",
        "train_tiny_model_tpu",
        "sweep_learning_rate",
        "data_mixture",
        "checkpoint_watch",
        "speedrun.llama_tiny",
    ],
)
def test_importing_a_tutorial_does_nothing(name: str, tmp_path: Path) -> None:
    code = f"import sys, experiments.tutorials.{name}; print([n for n in ('jax', 'numpy') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert list(tmp_path.iterdir()) == []
