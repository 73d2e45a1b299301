import re
from dataclasses import replace
from pathlib import Path

from experiments.lib.evaluate.config import BaselineEvaluation, ModelEvaluation, Sample, Samples
from experiments.lib.report.page import (
    Figure,
    Items,
    Page,
    Paragraph,
    Preformatted,
    Section,
    Table,
    as_html,
    as_markdown,
)
from experiments.lib.report.training import (
    ReportInput,
    TrainingReportConfig,
    summary_lines,
    training_page,
    write_training_report,
)
from experiments.lib.train.config import TrainedModel
from experiments.lib.train.metrics import MetricsLog, StepLine
from tests.training_runs import RECIPE

PAGE = Page(
    title="A <title>",
    blocks=(Items(("one", "two")),),
    sections=(
        Section("Words", (Paragraph("a & b"), Preformatted("```\nx < y"))),
        Section("Figures", (Table(("name", "value"), (("a|b", 1234), ("c", 0.12345))), Figure("f.png", "F", b"png"))),
    ),
)

MARKDOWN = """\
# A <title>

- one
- two

## Words

a & b

````text
```
x < y
````

## Figures

| name | value |
| --- | ---: |
| a\\|b | 1,234 |
| c | 0.1235 |

![F](f.png)
"""

CONFIG = TrainingReportConfig(
    title="A tiny model",
    recipe=RECIPE,
    training=TrainedModel(12, 1536, 0.5, 2000, 32, 2.0, 8, 2.1, 2.2, 1000.0),
    evaluation=ModelEvaluation(8, 3, 400, 120, 1.5, 4.0),
    baselines=BaselineEvaluation(5, 9000, 3, 400, 4.5, 1.9),
    samples=Samples(8, 0.8, 0, (Sample("def ", "main():\n<b>", finished=True), Sample("", "x", finished=False))),
    inputs=(ReportInput("data", "/somewhere/data"),),
    model_path="",
    output_path="",
)
LINES = [
    StepLine(1, loss=3.4, learning_rate=0.1, grad_norm=1.0),
    StepLine(4, loss=3.0, learning_rate=0.1, grad_norm=1.0, validation_loss=3.1),
]


def test_a_page_in_markdown() -> None:
    assert as_markdown(PAGE) == MARKDOWN


def test_a_page_in_html_escapes_all_text_and_holds_its_figures() -> None:
    text = as_html(PAGE)
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert "<p>a &amp; b</p>" in text
    assert "<pre>```\nx &lt; y</pre>" in text
    assert '<tr><td>a|b</td><td class="number">1,234</td></tr>' in text
    assert '<img alt="F" src="data:image/png;base64,cG5n">' in text


def test_the_summary_compares_with_what_counts_bytes() -> None:
    assert summary_lines(CONFIG.training, CONFIG.evaluation, CONFIG.baselines) == [
        "2,000 parameters, 1,536 tokens in 12 steps (0.50 epochs, 1,000 tokens/s)",
        "held-out documents: 1.500 bits per byte, perplexity 4.0 (step 8)",
        "for comparison: 1.900 bits per byte by 5-grams of bytes, 4.500 by single bytes",
    ]


def test_the_page_tells_recipe_samples_and_inputs() -> None:
    text = as_markdown(training_page(CONFIG, LINES))
    assert "| optimizer.learning_rate | 0.01 |" in text
    assert "| data | /somewhere/data |" in text
    assert "def ⟶main():\n<b> ∎" in text


def test_all_files_are_written_and_the_html_page_needs_none(tmp_path: Path) -> None:
    MetricsLog(str(tmp_path / "metrics.jsonl"), LINES).write()
    report = write_training_report(replace(CONFIG, model_path=str(tmp_path), output_path=str(tmp_path / "out")))
    assert sorted(report.files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "main():\n&lt;b&gt;" in page


def test_equal_curves_are_equal_files() -> None:
    first, second = (training_page(CONFIG, LINES) for _ in range(2))
    assert first == second
