"""Which config paths of a deferred function are no part of its identity: ``unversioned=`` and ``omit_when=``."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast, final

from marin_trace.errors import ConfigError, explain
from marin_trace.ir.canonical import memo_bytes
from marin_trace.ir.config_tree import Found, Record, Sequence, Tree, Unversioned, flatten
from marin_trace.ir.config_tree import Mapping as MappingTree
from marin_trace.ir.location import Location, user_location
from marin_trace.ir.records import Absent

Segment = str | int
_TOKEN = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]|\[(\*)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


@final
@dataclass(frozen=True, slots=True)
class IdentityRules:
    """The rules of one deferred function, parsed."""

    rules: "tuple[Rule, ...]"

    @classmethod
    def parsed(cls, unversioned: Iterable[str], omit_when: Mapping[str, object]) -> "IdentityRules":
        """Reads config paths such as ``config.shards[*].host`` or ``config.options['a']``.

        Raises:
            ConfigError: One cannot be read.
        """
        rules = [Rule(text, _segments(text), None) for text in unversioned]
        rules += [Rule(text, _segments(text), (flatten(value, []),)) for text, value in omit_when.items()]
        return cls(tuple(rules))

    def applied(
        self, arguments: Record, found: list[Found], label: str, location: Location
    ) -> tuple[Record, list[Found]]:
        """The arguments with everything marked that the rules take out of the identity.

        Raises:
            ConfigError: A rule names a parameter or field that does not exist.
        """
        left_out: list[str] = []
        for rule in self.rules:
            try:
                arguments = rule.applied(arguments, rule.segments, "", left_out)
            except KeyError as error:
                raise _no_such_path(rule.text, label, error, location) from None
        return arguments, [
            entry._replace(versioned=entry.versioned and not _lies_in(entry, left_out)) for entry in found
        ]


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """One config path, and for ``omit_when`` the value (in a tuple of one) at which it is left out."""

    text: str
    segments: tuple[Segment, ...]
    omitted_value: tuple[Tree] | None

    def applied(self, tree: Tree, segments: tuple[Segment, ...], path: str, left_out: list[str]) -> Tree:
        """``tree`` with the part at ``segments`` marked.

        Args:
            tree: A tree, or a part of one.
            segments: What is left of the path.
            path: Where ``tree`` lies.
            left_out: Gets the path of each part that was marked.

        Raises:
            KeyError: A record lacks the field; its arguments are the name and the names that there are.
        """
        if not segments:
            return self._marked(tree, path, left_out)
        head, rest = segments[0], segments[1:]
        match tree:
            case Record():
                names = tree.plan.names
                if head not in names:
                    raise KeyError(head, names)
                values = [
                    self.applied(item, rest, f"{path}.{name}", left_out) if name == head else item
                    for name, item in zip(names, tree.values, strict=True)
                ]
                return Record(tree.plan, tuple(values), tree.extras)
            case Sequence():
                items = [
                    self.applied(item, rest, f"{path}[{index}]", left_out) if head in ("*", index) else item
                    for index, item in enumerate(tree.items)
                ]
                return Sequence(tree.cls, tuple(items))
            case MappingTree():
                values = [
                    self.applied(item, rest, f"{path}[{key!r}]", left_out) if head in ("*", key) else item
                    for key, item in zip(tree.keys, tree.values, strict=True)
                ]
                return MappingTree(tree.cls, tree.keys, tuple(values), tree.empty)
            case Unversioned():
                return tree
            case _:
                return tree

    def _marked(self, tree: Tree, path: str, left_out: list[str]) -> Tree:
        if self.omitted_value is None:
            left_out.append(path)
            return Unversioned(tree)
        if memo_bytes(tree) != memo_bytes(self.omitted_value[0]):
            return tree
        left_out.append(path)
        return Absent(tree)


def _lies_in(entry: Found, left_out: list[str]) -> bool:
    text = f".{entry.path}"
    return any(text == path or text.startswith((f"{path}.", f"{path}[")) for path in left_out)


def _segments(text: Any) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    position = 0
    while isinstance(text, str) and position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (position == 0 and text.startswith((".", "["))):
            segments.clear()
            break
        name, index, star, *quoted = match.groups()
        segments.append(
            int(index) if index is not None else next(part for part in (name, star, *quoted) if part is not None)
        )
        position = match.end()
    if not segments:
        raise ConfigError(
            explain(
                f"{text!r} is not a config path",
                at=user_location(),
                hint='write "config.workers" or "config.shards[*].host"',
            )
        )
    return tuple(segments)


def _no_such_path(text: str, label: str, error: KeyError, location: Location) -> ConfigError:
    name, known = cast("tuple[Segment, tuple[str, ...]]", error.args)
    import difflib

    near = difflib.get_close_matches(str(name), known, n=1) or list(known[:1])
    return ConfigError(
        explain(
            f"{label} has nothing at the config path {text!r}: there is no {name!r}",
            at=location,
            facts={"there is": ", ".join(known)},
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    )
