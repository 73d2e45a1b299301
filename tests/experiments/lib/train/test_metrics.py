from pathlib import Path

import pytest

from experiments.lib.train.metrics import MetricsLog, StepLine, read_metrics

LINES = [StepLine(step, loss=1 / step, learning_rate=0.1, grad_norm=2.0) for step in (1, 2, 4)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "metrics.jsonl")
    MetricsLog(path, LINES).write()
    assert read_metrics(path) == LINES


def test_a_log_goes_on_after_a_step_without_what_came_later(tmp_path: Path) -> None:
    path = str(tmp_path / "metrics.jsonl")
    MetricsLog(path, LINES).write()
    log = MetricsLog.resume(path, step=2)
    log.append(StepLine(3, loss=0.5, learning_rate=0.1, grad_norm=1.0))
    log.write()
    assert [line.step for line in read_metrics(path)] == [1, 2, 3]


def test_from_the_start_no_file_is_needed(tmp_path: Path) -> None:
    assert MetricsLog.resume(str(tmp_path / "absent"), step=0).lines == []


def test_a_line_of_another_form_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0}\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not a line of metrics"):
        read_metrics(str(path))
