"""Laws of ``marin-trace lint``: what each rule finds, and what none says anything of."""

import re
from pathlib import Path

import pytest

import marin_trace
from marin_trace.migration.findings import Finding, explanation
from marin_trace.migration.lint import lint_file, lint_files, lint_text
from marin_trace.migration.module import Layer, Project, layer_of
from marin_trace.migration.names import ROOT_NAMES, Packages
from marin_trace.migration.rules.registry import RULES
from marin_trace.migration.sources import python_files
from tests.scripts import ROOT

STEPS = """
from dataclasses import dataclass, field, replace
import os
from os.path import join
import re
from pathlib import Path
from experiments.defaults import default_train
from experiments.lib.tokens import Config, tokenize as _tokenize
from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.legacy import ExecutorStep, InputName, THIS_OUTPUT_PATH, output_path_of, this_output_path

tokenize = deferred(_tokenize)

@step(name="raw/{name}")
def raw(name: str = "web") -> StepRef:
    return tokenize(Config(out=output()))

@step(name="all")
def run_all():
    raw()
"""
"""What every snippet has: its lines come after these."""

BAD = {
    "MT001": [
        "@dataclass\nclass C:\n    out: str = THIS_OUTPUT_PATH",
        "@dataclass\nclass C:\n    out: str = this_output_path()",
        "@dataclass\nclass C:\n    out: str = field(default_factory=this_output_path)",
        "@dataclass\nclass C:\n    out: str = field(default=THIS_OUTPUT_PATH)",
        "@dataclass\nclass C:\n    out: str = field(default_factory=lambda: this_output_path('x'))",
        "def f(data, out=THIS_OUTPUT_PATH): ...",
        "def f(data, *, out=output()): ...",
    ],
    "MT003": [
        "model = default_train('m', 1)",
        "tokens = raw()",
        "TOKENS = {name: raw(name) for name in 'ab'}",
        "class A:\n    tokens = raw()",
        "def f(tokens=raw()): ...",
        "if os.environ:\n    raw()",
        "for name in 'ab':\n    raw(name)",
        "def make():\n    return raw()\ntokens = make()",
        "again = raw.with_options(retries=2)()",
        "if __name__ != '__main__':\n    raw()",
    ],
    "MT004": [
        "if __name__ == '__main__':\n    executor_main(steps=[run_all(), raw()])",
        "if __name__ == '__main__':\n    executor_main([run_all(), raw()])",
        "if __name__ == '__main__':\n    executor_main(steps=[*map(raw, 'ab')])",
        "if __name__ == '__main__':\n    executor_main(steps=[raw(name) for name in 'ab'])",
        "def main(steps):\n    runs = [raw(), raw('b')]\n    executor_main(steps=runs)",
        "EVAL_DATASET_STEPS: list[ExecutorStep] = [\n    raw(),\n    raw('b'),\n]",
        "EVAL_STEPS = [raw(), raw('b')]",
    ],
    "MT005": [
        "x = ExecutorStep(name='x', fn=_tokenize, config=None)",
        "def f():\n    return ExecutorStep('x', _tokenize, None)",
    ],
    "MT006": [
        "from marin_trace.tracing.step import step as again",
        "from marin.execution.executor import step, deferred, output, versioned",
        "def f():\n    from marin_trace.ir.refs import StepRef",
    ],
    "MT007": [
        "model = default_train('m', 1)\nif __name__ == '__main__':\n    executor_main(steps=[model])",
        "if __name__ == '__main__':\n    executor_main(steps=[default_train('m', 1)])",
        "if __name__ == '__main__':\n    executor_main(steps=[])",
        "if __name__ == '__main__':\n    executor_main()",
        "from experiments.other import model\nif __name__ == '__main__':\n    executor_main(steps=[model])",
        "def make():\n    return raw()\nif __name__ == '__main__':\n    executor_main(steps=[make()])",
        "def make():\n    return [raw(), raw('b')]\nif __name__ == '__main__':\n    executor_main(steps=[make()[0]])",
    ],
    "MT008": ["figures = tokenize(Config())", "class A:\n    figures = tokenize(Config())"],
    "MT009": ["CONFIG = Config(out=output())", "if __name__ == '__main__':\n    print(output())"],
    "MT010": [
        'def f(ref: StepRef):\n    return f"{ref}/train"',
        "def f(ref: StepRef):\n    return str(ref)",
        "def f(ref: StepRef):\n    return ref + '/train'",
        "def f(ref: StepRef):\n    return '%s/train' % ref",
        "def f(ref: StepRef):\n    return '{}/train'.format(ref)",
        'def f():\n    return f"{raw()}/train"',
        'def f():\n    web = raw() / "a"\n    return f"{web!s}"',
        'def f(refs: list[StepRef]):\n    return [f"{ref}/train" for ref in refs]',
        'def f(refs: dict[str, StepRef]):\n    return [f"{ref}/{key}" for key, ref in refs.items()]',
        'def f(refs: dict[str, StepRef]):\n    return f"{refs[0]}/train"',
        'def f(ref: StepRef | None):\n    return f"{ref}/train"',
        'Data = StepRef | None\ndef f(ref: Data):\n    return f"{ref}/train"',
        'def f(refs: "dict[str, StepRef]"):\n    return [f"{ref}/train" for ref in refs.values()]',
        'REF = StepRef.hardcoded("x")\nPATH = f"{REF}/train"',
        '@step\ndef f():\n    return tokenize(f"{raw().artifact.size}")',
    ],
    "MT011": [
        "def f(ref: StepRef):\n    return os.path.join(ref, 'train')",
        "def f(ref: StepRef):\n    return join(ref, 'train')",
        "def f(ref: StepRef):\n    return Path(ref)",
        "def f(ref: StepRef):\n    return open(ref)",
        "def f(ref: StepRef):\n    return os.path.exists(ref / 'x')",
    ],
    "MT012": ["def f():\n    return Config(out=this_output_path())", "def f():\n    return Config(THIS_OUTPUT_PATH)"],
    "MT013": [
        "def f(x: InputName): ...",
        "def f(x: 'str') -> ExecutorStep: ...",
        "def f(x):\n    return output_path_of(x)",
        "def f(ref: StepRef):\n    return replace(ref.config, lr=1)",
        "def f(x):\n    return isinstance(x, ExecutorStep)",
        "Tokens = ExecutorStep[Config]",
        "def f(ref: StepRef):\n    return replace(ref, name='x')",
        "def f(ref: StepRef):\n    return ref.step",
        "def f(x):\n    match x:\n        case ExecutorStep(name=name):\n            return name",
    ],
    "MT014": ["@step\ndef f():\n    return _tokenize(Config(out=output()))"],
    "MT015": [
        "def f(ref: StepRef):\n    if ref:\n        return 1",
        "def f(ref: StepRef):\n    return ref or None",
        "def f(ref: StepRef):\n    return not ref",
        "def f(ref: StepRef):\n    return ref == 'gs://x'",
        "def f(ref: StepRef):\n    return 'x' in ref",
        "def f(ref: StepRef):\n    for x in ref:\n        print(x)",
        "def f(ref: StepRef):\n    return len(ref)",
        "@step\ndef f():\n    figures = tokenize(output())\n    if figures['rows'] > 0:\n        tokenize(figures)",
    ],
    "MT016": [
        "if __name__ == '__main__':\n    executor_main(steps=[run_all])",
        "@step\ndef f():\n    return tokenize(raw / 'train')",
        "@step\ndef f():\n    return tokenize(Config(data=raw))",
        "def f():\n    return raw.nonblocking()",
    ],
}
"""Snippets that break one rule, and no other that the rule's own finding would not imply."""

IMPLIED = {"MT003": {"MT004", "MT007", "MT001"}, "MT004": {"MT003", "MT013"}, "MT007": {"MT003"}, "MT013": set[str]()}

GOOD = [
    "if __name__ == '__main__':\n    executor_main(steps=[run_all()])",
    "def main():\n    refs = run_all()\n    executor_main(steps=[refs])\n    executor_main(steps=refs)",
    "if __name__ == '__main__':\n    executor_main(steps=[run_all()[0]])",
    "Text = str\ndef f(x: Text, y: 'not a type', z: '\\\\'):\n    return f'{x}{y}{z}'",
    "if __name__ == '__main__':\n    executor_main(**{'steps': [run_all()]})",
    "def helper():\n    return [raw(), raw('b')]",
    "@step\ndef f(ref: StepRef):\n    return tokenize(Config(ref / 'train', f'{ref.name}', out=output()))",
    "def f(ref: StepRef):\n    return f'{ref!r} is logged'",
    "def f(ref: StepRef | None):\n    return raw() if ref is None else ref",
    "def f(source: StepRef | str):\n    return os.path.join(source, 'x') if isinstance(source, str) else source",
    "def f(refs: dict[str, StepRef]):\n    return [f'{name}' for name in refs], len(refs), sorted(refs)",
    "def f(refs: list[StepRef]):\n    for ref in refs:\n        raw(ref.name)",
    "def f(*refs: StepRef, **named: StepRef):\n    return [r for r in refs], len(named), [*named.values()]",
    "MAKERS = {'web': raw, 'code': lambda: raw('code')}",
    "READY = StepRef.hardcoded('gs://bucket/x') / 'train'",
    "tokenizers = [deferred(f) for f in (print, repr)]",
    "def f(step, output):\n    return f'{step}/{output()}'",
    "def raw_text(path):\n    return os.path.join(path, 'x')",
    "x = replace(Config(), lr=1)\nassert f'{x}'",
    "def f():\n    assert tokenize(Config()) == 3",
    "@dataclass\nclass Config2:\n    data: str\n    ref: StepRef | None = None",
    "from marin_trace.io import atomic_write",
    "from marin.execution import step as step2, deferred as deferred2",
    "@step(name='x', resources=lambda cfg: cfg.resources)\ndef f(cfg):\n    return tokenize(cfg, out=output())",
    "def f():\n    raw = 'web'\n    return f'{raw}', len(raw), raw or None",
]


def findings_of(source: str, path: str = "experiments/exp.py") -> list[Finding]:
    return lint_text(Path(path), STEPS + source + "\n", Project())


def line_and_code(source: str) -> tuple[int, set[str]]:
    findings = findings_of(source)
    return min((finding.line for finding in findings), default=0), {finding.code for finding in findings}


@pytest.mark.parametrize(("code", "source"), [(code, source) for code, sources in BAD.items() for source in sources])
def test_a_rule_finds_what_it_is_about_and_nothing_else(code: str, source: str) -> None:
    line, codes = line_and_code(source)
    assert code in codes
    assert codes - {code} <= IMPLIED.get(code, set())
    assert line > STEPS.count("\n")


def test_every_rule_has_snippets() -> None:
    in_library = {"MT002"}
    assert {rule.code for rule in RULES} == BAD.keys() | in_library


@pytest.mark.parametrize("source", GOOD)
def test_nothing_is_said_of_what_works(source: str) -> None:
    assert findings_of(source) == []


LIBRARY = "experiments/lib/train.py"


@pytest.mark.parametrize(
    "source",
    [
        "from marin_trace import StepRef",
        "import marin_trace",
        "from marin.execution.executor import ExecutorStep, InputName",
        "def f():\n    from marin_trace import output",
        "from marin_trace.ir.refs import HardcodedPath",
    ],
)
def test_library_code_does_not_import_the_executor(source: str) -> None:
    codes = {finding.code for finding in lint_text(Path(LIBRARY), source, Project())}
    assert "MT002" in codes
    assert "MT002" not in {finding.code for finding in lint_text(Path("experiments/steps/x.py"), source, Project())}


@pytest.mark.parametrize(
    "source",
    [
        "from marin_trace.io import atomic_write",
        "from marin_trace import io",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from marin_trace import StepRef",
        "import marin_tracer",
    ],
)
def test_library_code_may_import_what_writes_files_and_what_only_types_need(source: str) -> None:
    assert lint_text(Path(LIBRARY), source, Project()) == []


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("experiments/lib/x.py", Layer.LIBRARY),
        ("lib/marin/src/marin/download/x.py", Layer.LIBRARY),
        ("experiments/steps/x.py", Layer.WIRING),
        ("experiments/x.py", Layer.USER),
        ("experiments/speedrun/lib/x.py", Layer.USER),
        ("x.py", Layer.USER),
        ("tests/experiments/lib/test_x.py", Layer.USER),
    ],
)
def test_the_layer_is_where_a_file_lies_in_its_project(path: str, layer: Layer, tmp_path: Path) -> None:
    root = tmp_path / "lib" / "checkout"
    root.mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    assert layer_of(root / path) is layer


@pytest.mark.parametrize("code", ["MT003", "MT0", None])
@pytest.mark.parametrize(
    ("line", "is_covered"),
    [
        ("tokens = raw()  # noqa{}", True),
        ("tokens = raw()  # NOQA{}  since it is so", True),
        ("tokens = raw(\n    'a',\n)  # noqa{}", True),
        ("tokens = raw('# noqa{}')", False),
        ("# noqa{}\ntokens = raw()", False),
        ("tokens = raw()  # noqa: F401", False),
    ],
)
def test_noqa_covers_what_ends_on_its_line(code: str | None, line: str, is_covered: bool) -> None:
    if code == "MT0":
        # The beginning of a code covers nothing that exists.
        is_covered = False
    codes = {finding.code for finding in findings_of(line.format("" if code is None else f": {code}"))}
    assert codes == (set() if is_covered else {"MT003"})


def test_noqa_of_several_codes() -> None:
    assert findings_of("tokens = raw()  # noqa: F401, MT003") == []
    assert [finding.code for finding in findings_of("tokens = raw()  # noqa: MT004, MT005")] == ["MT003"]


def test_a_place_is_counted_in_characters() -> None:
    source = "λ, tokens = 'äöü', raw()"
    [finding] = lint_text(Path("x.py"), f"from marin_trace import step\n@step\ndef raw(): ...\n{source}\n", Project())
    assert source[finding.column - 1 : finding.end_column - 1] == "raw()"
    assert (finding.line, finding.end_line) == (4, 4)


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"x = 1\ny = (\n", r"'\(' was never closed", 2),
        (b"def f(:\n", "invalid syntax|expected", 1),
        (b"x = 1\n\xff\xfe\n", "utf-8", 2),
        (b"# coding: klingon\n", "klingon", 1),
        (b"x = 1\0\n", "null", 1),
        (b"x = " + b"(" * 400 + b")" * 400, "nested|too many", 1),
    ],
)
def test_what_is_no_python_is_said_to_be_none(data: bytes, message: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(data)
    [finding] = lint_file(path, Project())
    assert finding.code == "MT000"
    assert re.search(message, finding.message)
    assert finding.line in (line, 1)


def test_refs_are_followed_into_other_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    experiments = tmp_path / "experiments"
    (experiments / "steps").mkdir(parents=True)
    (experiments / "steps" / "raw.py").write_text(STEPS + "def pair():\n    return [raw(), raw('b')]\n")
    (experiments / "steps" / "again.py").write_text("from experiments.steps.raw import raw as web, pair\n")
    path = experiments / "exp.py"
    path.write_text(
        "from experiments.steps.again import web\n"
        "import experiments.steps.raw as steps\n"
        "from .steps.again import pair\n"
        "def f():\n"
        '    return f"{web()}", f"{steps.raw()}", [f"{ref}" for ref in pair()]\n'
        "first = web()\n"
    )
    assert [(finding.line, finding.code) for finding in lint_file(path, Project())] == [
        *[(5, "MT010")] * 3,
        (6, "MT003"),
    ]


def test_files_that_import_each_other_are_judged(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "a.py").write_text("from b import x\ny = x\ndef f():\n    return f()\n")
    (tmp_path / "b.py").write_text("from a import y\nx = y\nz = z2 = z\n")
    assert lint_files([tmp_path / "a.py", tmp_path / "b.py"]) == []


def test_the_executor_may_be_imported_from_elsewhere() -> None:
    source = "from our.execution import step\n@step\ndef raw(): ...\nraw()\n"
    assert lint_text(Path("x.py"), source, Project()) == []
    findings = lint_text(Path("x.py"), source, Project(Packages("our.execution", "marin_trace")))
    assert [finding.code for finding in findings] == ["MT003"]


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("x = ExecutorStep(name='x', fn=f, config=Config(this_output_path()))", ["MT005", "MT012"]),
        ("from marin.execution.executor import *\nx = InputName.hardcoded('a')", ["MT006", "MT013"]),
        ("model = default_train(name='foo')\nexecutor_main(steps=[model])", ["MT003", "MT007"]),
        ("EVAL_STEPS: list[ExecutorStep] = [a(), b()]", ["MT004", "MT013"]),
        ("@step(name='all')\ndef run_all():\n    a()", []),
        ("for step in 'ab':\n    output = step\n    print(f'{output}', deferred)", []),
    ],
)
def test_an_excerpt_without_its_imports_is_understood(source: str, codes: list[str]) -> None:
    findings = lint_text(Path("exp.py"), f"{source}\n", Project())
    assert sorted({finding.code for finding in findings}) == codes


def test_many_files_over_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    paths: list[Path] = []
    for number in range(90):
        paths.append(tmp_path / f"exp{number}.py")
        paths[-1].write_text(STEPS + "tokens = raw()\n" * (number % 3))
    findings = lint_files(paths)
    assert findings == sorted(finding for path in paths for finding in lint_file(path, Project()))
    assert len(findings) == 90


def test_the_experiments_of_this_project_are_clean() -> None:
    assert lint_files(python_files([str(ROOT / "experiments")])) == []


def test_the_names_of_the_root_are_those_that_it_exports() -> None:
    assert frozenset(marin_trace.__all__) == ROOT_NAMES


def test_codes_are_in_order_and_every_rule_is_explained() -> None:
    assert [rule.code for rule in RULES] == [f"MT{number:03}" for number in range(1, len(RULES) + 1)]
    for rule in RULES:
        text = explanation(rule)
        assert text.startswith(f"{rule.code} {rule.name}: ")
        compile(rule.bad, rule.code, "exec")
        compile(rule.good, rule.code, "exec")
