"""How plans read: folded, in the width that there is, and with each change told once."""

from pathlib import Path

import pytest

from marin_trace.planning.fold import LONGEST_FAN, rows_of
from marin_trace.planning.plan import Explanation, Plan, PlannedAction, PlannedStep
from marin_trace.planning.render import render_plan
from marin_trace.planning.render_terminal import terminal_lines
from marin_trace.runtime.records import FieldChange

GOLDEN = Path(__file__).parent / "golden"
PREFIX = "gs://bucket/outputs"


def path_of(name: str) -> str:
    return f"{PREFIX}/{name}-0123abcd"


def planned(name: str, action: PlannedAction = PlannedAction.HIT, reason: str = "finished", **fields) -> PlannedStep:
    template = fields.pop("template", f"{name.rpartition('/')[0]}/{{name}}")
    deps = tuple(path_of(dep) for dep in fields.pop("deps", ()))
    return PlannedStep(name, action, reason, path_of(name), deps, template=template, **fields)


def changed(name: str, *changes: FieldChange, **fields) -> PlannedStep:
    names = ", ".join(change.path for change in changes)
    explanation = Explanation(path_of(name), tuple(changes))
    return planned(name, PlannedAction.RUN, f"never built; {names} changed", explanation=explanation, **fields)


def below(name: str, cause: str, **fields) -> PlannedStep:
    explanation = Explanation(path_of(cause))
    return planned(name, PlannedAction.RUN, f"never built; {cause} changed", explanation=explanation, **fields)


VOCAB = FieldChange("config.vocab_size", "4096", "2048")
LR = FieldChange("config.lr", "0.1", "0.2")
SEED = FieldChange("config.seed", None, "7")


def two_hundred() -> Plan:
    """A corpus of many files, a sweep of groups, and what is told of each."""
    inner = {"group_path": ("everything", "corpus"), "group_templates": ("everything", "corpus")}
    steps = [planned(f"download/{n:03}", **inner) for n in range(60)]
    steps.append(changed("tokenizer/bpe", VOCAB, deps=["download/000"], **inner))
    files = [(f"tokenize/{n:03}", f"download/{n:03}") for n in range(60)]
    steps += [below(name, "tokenizer/bpe", deps=["tokenizer/bpe", file], **inner) for name, file in files]
    for n in range(25):
        group = {"group_path": ("everything", f"trial/{n}"), "group_templates": ("everything", "trial/{number}")}
        steps.append(changed(f"train/{n}", LR, SEED, **group))
        steps.append(below(f"evaluate/{n}", f"train/{n}", deps=[f"train/{n}"], **group))
        steps.append(planned(f"plot/{n}", PlannedAction.WAIT, f"running on host (pid {n})", **group))
    broken = "failed before: ValueError: " + "a long message that does not fit into any line of a terminal " * 3
    steps.append(planned("report/all", PlannedAction.RUN, broken, deps=[f"evaluate/{n}" for n in range(25)]))
    steps.append(planned("upload/all", PlannedAction.SKIP, "needs report/all, which will not be built"))
    steps.append(PlannedStep("by hand", PlannedAction.HIT, "finished", "/elsewhere/a/place/of/its/own", ()))
    return Plan(tuple(steps))


def few() -> Plan:
    steps = (planned("raw/a"), changed("use/a", LR, deps=["raw/a"]), below("end", "use/a", template="end"))
    return Plan(steps)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("two_hundred.txt", render_plan(two_hundred())),
        ("few.txt", render_plan(few())),
        ("two_hundred_80.txt", "\n".join(line.plain for line in terminal_lines(two_hundred(), width=80))),
        ("two_hundred_50.txt", "\n".join(line.plain for line in terminal_lines(two_hundred(), width=50))),
        ("few_80.txt", "\n".join(line.plain for line in terminal_lines(few(), width=80))),
    ],
)
def test_plans_read_as_they_did(name: str, text: str) -> None:
    assert "\n".join(line.rstrip() for line in text.splitlines()) + "\n" == (GOLDEN / name).read_text()


@pytest.mark.parametrize("width", [20, 33, 50, 80, 120, 300])
@pytest.mark.parametrize("full", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, full: bool) -> None:
    assert max(line.cell_len for line in terminal_lines(two_hundred(), width=width, full=full)) <= width


def test_a_plan_of_two_hundred_steps_fits_a_screen_unless_all_is_asked_for() -> None:
    assert len(two_hundred().steps) == 199
    assert len(terminal_lines(two_hundred(), width=100)) < 30
    assert len(terminal_lines(two_hundred(), width=100, full=True)) > 199
    text = render_plan(two_hundred(), full=True)
    assert all(step.output_path in text for step in two_hundred().steps)


@pytest.mark.parametrize("number", [LONGEST_FAN, LONGEST_FAN + 1])
def test_only_long_fans_are_folded(number: int) -> None:
    plan = Plan(tuple(planned(f"raw/{n}") for n in range(number)))
    assert len(rows_of(plan)) == (number if number <= LONGEST_FAN else 1)


def test_what_differs_in_its_reason_is_no_fan() -> None:
    steps = [planned(f"raw/{n}", reason=f"failed before: number {n}") for n in range(9)]
    assert len(rows_of(Plan(tuple(steps)))) == 9


def test_specs_without_a_template_are_no_fan() -> None:
    steps = tuple(planned(f"raw/{n}", template=None) for n in range(9))
    assert len(rows_of(Plan(steps))) == 9


def test_an_equal_change_is_told_once() -> None:
    steps = tuple(changed(f"tokens/{n}", VOCAB) for n in range(3))
    assert render_plan(Plan(steps)).count("4096 → 2048") == 1
