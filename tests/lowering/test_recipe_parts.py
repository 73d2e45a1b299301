"""The recipe in words: what a person compares when a fingerprint has changed."""

import functools
from dataclasses import dataclass, field
from typing import Any

from marin_trace import StepRef, StepSpec, deferred, lower, output, step, unversioned


@dataclass(frozen=True)
class Config:
    data: str
    out: str
    tokenizer: str = "bpe"
    workers: int = 1
    mix: dict[str, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()


def tokenize(config: Config) -> dict[str, int]: ...


def write(path: Any) -> dict[str, int]: ...


@step(name="raw")
def raw() -> StepRef:
    return deferred(write)(output())


def parts(body: Any, **options: Any) -> dict[str, str]:
    @step(name="one", **options)
    def one() -> Any:
        return body()

    return dict(lower(one())[-1].recipe_parts())


def test_parts_are_keyed_by_config_path() -> None:
    config = Config(StepRef.hardcoded("gs://x"), "o", mix={"web": 0.5}, sizes=(1, 2), workers=unversioned(3))
    assert parts(lambda: deferred(tokenize)(config)) == {
        "name": "one",
        "function": f"{__name__}:tokenize",
        "config": "Config",
        "config.data": "path('gs://x')",
        "config.out": "'o'",
        "config.tokenizer": "'bpe'",
        "config.mix": "dict",
        "config.mix['web']": "0.5",
        "config.sizes": "tuple",
        "config.sizes[0]": "1",
        "config.sizes[1]": "2",
        "returns": "result 1",
    }


def test_producers_appear_with_name_and_hash() -> None:
    spec = lower(raw())[0]
    seen = parts(lambda: deferred(tokenize)([raw() / "a", raw().nonblocking(), raw().artifact["n"]]))
    hashed = spec.name_with_hash
    assert [seen[f"config[{n}]"] for n in range(3)] == [
        f"{hashed}/a",
        f"{hashed} (nonblocking)",
        f"{hashed}.artifact['n']",
    ]


def test_calls_of_a_larger_body_are_told_apart() -> None:
    def body() -> Any:
        first = deferred(write)("a")
        return deferred(write)(first["n"])["m"]

    seen = parts(body)
    assert (seen["write()"], seen["write.path"]) == (f"{__name__}:write", "'a'")
    assert (seen["write#2.path"], seen["returns"]) == ("result 1['n']", "result 2['m']")


def test_parameters_that_are_called_as_what_is_the_steps_own_are_told_apart() -> None:
    def fetch(name: str, version: int, function: str, returns: str) -> int: ...

    seen = parts(lambda: deferred(fetch, identity="fetch")("words", 2, "f", "r"), version="2024")
    assert seen == {
        "@step(name)": "one",
        "@step(version)": "'2024'",
        "@step(function)": "fetch",
        "name": "'words'",
        "version": "2",
        "function": "'f'",
        "returns": "'r'",
        "@step(returns)": "result 1",
    }


def test_the_version_is_shown() -> None:
    assert parts(lambda: deferred(write)("a"), version="2024")["version"] == "'2024'"


def test_one_and_its_text_differ_in_words_too() -> None:
    assert parts(lambda: deferred(write)(1))["path"] != parts(lambda: deferred(write)("1"))["path"]


def test_parts_of_a_handwritten_spec() -> None:
    dep = StepSpec("raw")
    spec = StepSpec("one", deps=[dep], hash_attrs={"shards": [1, 2], "url": "x"})
    assert spec.recipe_parts() == {
        "name": "one",
        "shards[0]": "1",
        "shards[1]": "2",
        "url": "'x'",
        "deps[0]": dep.name_with_hash,
    }


def test_the_order_of_dicts_and_sets_does_not_show() -> None:
    letters = [chr(97 + number) for number in range(26)]
    orders = (letters, letters[::-1])
    for first, second in ([made(order) for order in orders] for made in (set, dict.fromkeys)):
        assert parts(functools.partial(deferred(write), first)) == parts(functools.partial(deferred(write), second))


def test_what_is_returned_is_told_apart() -> None:
    def body(choose: Any) -> Any:
        return choose(deferred(write)(1), deferred(write)(2))

    first, second = (parts(lambda choose=choose: body(choose)) for choose in (lambda a, b: [a], lambda a, b: [b["k"]]))
    assert (first["returns[0]"], second["returns[0]"]) == ("result 1", "result 2['k']")


def test_functions_given_as_values_appear_with_their_module() -> None:
    seen = parts(lambda: deferred(write)([tokenize, functools.partial(tokenize, config=1)]))
    assert seen["path[0]"] == f"{__name__}:tokenize"
    assert (seen["path[1]"], seen["path[1]['config']"]) == (f"partial {__name__}:tokenize", "1")


def test_different_recipes_differ_in_words() -> None:
    """Whatever changes a fingerprint shows in the parts, or nobody could be told why."""
    values = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {"a": 1}, None, [], (), {}, [1, 2], [2, 1], [[]], range(1)]
    values += [raw(), raw() / "a", raw().nonblocking(), raw().artifact, StepRef.hardcoded("raw"), "raw"]
    values += [{0: 1}, {"a": 1, "b": 2}, {1, 2}, {raw()}, {raw() / "a"}, {raw(): 1}, {raw() / "a": 1}]
    values += [Config("a", "b"), write, tokenize, Config, [unversioned(1), 2], [2, unversioned(1)], [2]]
    words = [parts(lambda value=value: deferred(write)(value)) for value in values]
    same = [(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i < j and words[i] == words[j]]
    assert same == []
