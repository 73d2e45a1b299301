"""Laws of ``marin-trace graph``: every format shows the same steps, groups and edges."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.site import EXPERIMENT, Site, golden
from tests.scripts import tree_of, write_script


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("text", []),
        ("status", ["--status"]),
        ("mermaid", ["--status", "--format", "mermaid"]),
        ("dot", ["--status", "--format", "dot"]),
    ],
)
def test_an_experiment_in_each_format(site: Site, told: Command, name: str, flags: list[str]) -> None:
    vocabulary = ["--vocab_size", "13"] if "--status" in flags else []
    code, out, err = told("graph", *flags, "--prefix", site.prefix, site.script, *vocabulary)
    assert (code, site.told(out), err) == (0, golden(f"graph_{name}"), "")


def test_a_prefix_is_drawn_as_its_outputs_were_built(site: Site, told: Command) -> None:
    code, out, _ = told("graph", site.prefix)
    lines = site.told(out).splitlines()
    assert code == 0
    assert len(lines) == 10
    assert lines[0] == "a : text/t0-HASH  = write"
    assert sum(line.endswith("= count reads a") for line in lines) == 3
    assert told("graph", "--format", "mermaid", site.prefix)[1].count(" --> ") == 6 + 4


def test_json_has_ids_as_the_printed_graph_letters_them(site: Site, told: Command) -> None:
    _, out, _ = told("graph", "--json", "--status", "--prefix", site.prefix, site.script)
    graph = json.loads(out)
    assert graph["schema_version"] == 1
    assert {step["id"]: step["name"] for step in graph["steps"]} == {
        "a": "text/t0",
        "b": "text/t1",
        "c": "count/t0",
        "d": "count/t1",
        "e": "merged",
    }
    assert graph["groups"] == [
        {"path": ["all"], "steps": ["a", "b", "c", "d", "e"]},
        {"path": ["all", "sources"], "steps": ["a", "b"]},
    ]
    assert graph["edges"] == [
        {"from": source, "to": target, "kind": "data"} for source, target in ("ac", "bd", "ce", "de")
    ]
    assert {step["state"] for step in graph["steps"]} == {"finished"}


def test_edges_that_wait_for_nothing_or_read_nothing_look_different(tmp_path: Path, told: Command) -> None:
    text = EXPERIMENT.replace(
        "    merged([", '    watched("w", sources(1)[0].nonblocking(), text("first"))\n    merged(['
    ).replace(
        '@step(name="sources")',
        '@step(name="watched/{name}")\ndef watched(name: str, source: StepRef, before: StepRef) -> StepRef:\n'
        '    return deferred(write)(output(), source / "text")\n\n\n@step(name="sources")',
    )
    script = write_script(tmp_path, text)
    edges = json.loads(told("graph", "--json", script)[1])["edges"]
    assert {edge["kind"] for edge in edges} == {"data", "non-blocking", "ordering"}
    assert "-.->" in told("graph", "--format", "mermaid", script)[1]
    assert "-. after .->" in told("graph", "--format", "mermaid", script)[1]
    assert "[style=dashed]" in told("graph", "--format", "dot", script)[1]
    assert "[style=dotted]" in told("graph", "--format", "dot", script)[1]


def test_specs_that_were_written_by_hand_are_shown(tmp_path: Path, told: Command) -> None:
    script = write_script(
        tmp_path,
        """
from marin_trace import StepSpec, executor_main

def build(path): ...

raw = StepSpec("raw", fn=build)
executor_main(steps=[StepSpec('odd=+@,1', deps=[raw], fn=build)])
""",
    )
    assert told("graph", script)[1] == "a : raw      = build\nb : odd=+@,1 = build reads a\n"
    assert (
        told("graph", "--status", script)[1] == "waiting  a : raw      = build\nwaiting  b : odd=+@,1 = build reads a\n"
    )


def test_nothing_is_written(site: Site, told: Command) -> None:
    before = tree_of(site.prefix)
    told("graph", "--status", site.prefix)
    assert tree_of(site.prefix) == before


def test_mistakes_are_told(tmp_path: Path, told: Command) -> None:
    code, out, err = told("graph", tmp_path)
    assert (code, out) == (1, "")
    assert f"RunError: there is no output below {tmp_path}" in err
    with pytest.raises(SystemExit, match="2"):
        told("graph", "--format", "png")
