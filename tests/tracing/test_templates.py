"""Name templates: over every kind of argument, and what they refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, output, step, trace, unversioned
from marin_trace.errors import StepNameError


def work(*args: Any) -> Any: ...


run = deferred(work)


@dataclass(frozen=True)
class Config:
    lr: float = 3e-4
    tags: tuple[str, ...] = ("a", "b")


def name_of(template: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return trace(step(name=template)(function), *args, **kwargs).nodes[-1].name


def every_kind(first: str, /, second: str, *rest: str, third: str = "x", **more: Any) -> StepRef:
    return run(output())


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{first}/{second}", "a/b"),
        ("{third}", "x"),
        ("{lr}-{seed}", "0.1-7"),
        ("{lr:.0e}", "1e-01"),
        ("{rest[0]}", "c"),
        ("{more[lr]}", "0.1"),
        ("{first:>05}", "0000a"),
        ("{seed!r}", "7"),
        ("plain", "plain"),
    ],
)
def test_a_name_is_formatted_over_all_bound_arguments(template: str, name: str) -> None:
    assert name_of(template, every_kind, "a", "b", "c", lr=0.1, seed=7) == name


def test_defaults_and_attributes_are_formatted() -> None:
    def body(cfg: Config = Config(), scale: int = 2) -> StepRef:
        return run(output())

    assert name_of("train/{cfg.lr:.0e}-{scale}-{cfg.tags[1]}", body) == "train/3e-04-2-b"


def test_a_keyword_named_like_a_positional_only_parameter_does_not_hide_it() -> None:
    def body(name: str, /, **more: Any) -> StepRef:
        return run(output())

    assert name_of("{name}", body, "a", name="b") == "a"


def test_a_ref_in_a_template_is_an_error_that_hints_its_name(at: Callable[[str], str]) -> None:
    @step(name="tokenize/{data}")
    def tokenize(data: Any) -> StepRef:
        return run(output(), data)

    for argument in (StepRef.hardcoded("gs://b/raw"), step(lambda: run(output())).with_options(name="raw")()):
        with pytest.raises(
            StepNameError, match=r"cannot fill in the name .*: data is <StepRef .*raw>, which has no text"
        ) as error:
            tokenize(argument)  # formatted
        assert at("formatted") in str(error.value)
        assert "hint: write 'tokenize/{data.name}'" in str(error.value)


def test_the_name_of_a_ref_can_be_formatted() -> None:
    @step(name="tokenize/{data.name}")
    def tokenize(data: Any) -> StepRef:
        return run(output(), data)

    assert tokenize(StepRef.hardcoded("gs://b/raw")).name == "tokenize/raw"


@pytest.mark.parametrize("field", ["cfg[0]", "cfg.ref"])
def test_a_ref_inside_an_argument_is_refused_too(field: str) -> None:
    class Holder(list[Any]):
        ref = StepRef.hardcoded("x")

    with pytest.raises(StepNameError, match="cfg is <StepRef x>, which has no text") as error:
        name_of(f"a/{{{field}}}", lambda cfg: run(output()), Holder([StepRef.hardcoded("x")]))
    assert f"hint: write 'a/{{{field}.name}}'" in str(error.value)


def test_an_artifact_in_a_template_is_an_error() -> None:
    artifact = step(lambda: run(output())).with_options(name="raw")().artifact
    with pytest.raises(StepNameError, match="size is a deferred result") as error:
        name_of("a/{size}", lambda size: run(output()), artifact.size)
    assert "hint: use a parameter that is plain text or a number" in str(error.value)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{other}", "no argument 'other'"),
        ("{cfg.other}", "has no attribute 'other'"),
        ("{cfg.tags[5]}", "index out of range"),
        ("{cfg.lr:x}", "Unknown format code"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_an_error(
    template: str, complaint: str, at: Callable[[str], str]
) -> None:
    @step(name=template)
    def body(cfg: Config) -> StepRef:
        return run(output())

    with pytest.raises(StepNameError, match="cannot fill in the name") as error:
        body(Config())  # unfilled
    assert complaint in str(error.value)
    assert at("unfilled") in str(error.value)
    assert "arguments: cfg" in str(error.value)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{}", "has a field without a name"),
        ("{0}", "has a field without a name"),
        ("{a", "is not a template"),
        ("}", "is not a template"),
    ],
)
@pytest.mark.parametrize("option", ["name", "description", "override_output_path"])
def test_a_template_that_cannot_be_read_is_refused_where_it_is_given(option: str, template: str, match: str) -> None:
    with pytest.raises(StepNameError, match=match) as error:
        step(**{option: template})(lambda: None)
    assert "{name}" in str(error.value).split("hint: ")[1]


def test_doubled_braces_are_text() -> None:
    with pytest.raises(StepNameError, match=r"'a/{x}' is not a step name: it holds '{'"):
        name_of("a/{{x}}", lambda: run(output()))


def test_description_and_override_are_templates_over_the_same_arguments() -> None:
    @step(name="{word}", description="{more[seed]} of {word}", override_output_path="at/{word}/{seed}")
    def body(word: str, **more: Any) -> StepRef:
        return run(output())

    [node] = trace(body, "a", seed=3).nodes
    assert (node.options.description, node.override_output_path) == ("3 of a", "at/a/3")


def test_what_is_no_part_of_the_identity_may_use_unversioned_arguments() -> None:
    @step(description="on {cores} cores", resources=lambda cores: ResourceConfig.with_cpu(cores))
    def sized(cores: int) -> StepRef:
        return deferred(print)(output(), cores)

    [node] = trace(sized, unversioned(8)).nodes
    assert node.options.description == "on 8 cores"
    assert node.options.resources == ResourceConfig.with_cpu(8)


def test_an_unversioned_argument_in_a_name_is_an_error() -> None:
    @step(name="on/{cores}")
    def sized(cores: int) -> None: ...

    with pytest.raises(StepNameError, match=r"cores is unversioned, and the name is identity\n  at .*test_templates"):
        sized(unversioned(8))
