"""What a module builds when it is imported, and where that goes instead.

A statement *depends on steps* if it calls one, or reads a name that such a statement binds. It goes

- into the entry step, where only what ``executor_main`` is given needs it;
- into a function of its own, where functions or other modules read what it binds, and each reader calls that;
- nowhere, where neither would mean the same: it stays, and lint names it.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import final

from marin_trace.migration.inference import calls_steps, is_own_output, kind_of, makes_older_steps
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import MUTATORS, names_changed_after
from marin_trace.migration.rewriting.imports import fresh_name
from marin_trace.migration.rewriting.lines import (
    DEFINITIONS,
    Line,
    dependent_names,
    is_simple,
    line_of,
    names_read_in_parts,
    names_read_inside,
    names_taken_apart,
    needed_names,
    own_reads,
    shares_its_line,
    spread,
)
from marin_trace.migration.rules.entry import executor_calls, needs_entry
from marin_trace.migration.scopes import Assigned, Element, Imported, is_main_test


_COLLECTIONS = frozenset({"list", "tuple", "sorted", "set", "reversed", "dict"})
_PASSING_ON = frozenset({"values", "copy", "cd", "nonblocking", "with_output_path"})
"""Methods of refs and of collections of them that make no step."""


_FUNCTIONS = (*DEFINITIONS, ast.Lambda)


class Fate(StrEnum):
    """What becomes of a name that depends on steps."""

    LOCAL = "a name of the entry step"
    FUNCTION = "a function that its readers call"
    BUILDER = "a function that several statements build it in"
    MAKERS = "a mapping of functions, of which each reader calls those that it wants"
    LEFT = "what it was"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The call of ``executor_main`` that gets an entry step."""

    call: ast.Call
    steps: ast.expr
    holder: ast.stmt
    """The statement of the module that it stands in."""
    block: list[ast.stmt]
    """The statements beside it: those of ``if __name__ == "__main__":``, or of a function."""


@final
@dataclass(slots=True, eq=False)
class HoistPlan:
    """What becomes of the statements of a module."""

    fates: dict[str, Fate] = field(default_factory=dict[str, Fate])
    lines: list[Line] = field(default_factory=list[Line])
    entry: Entry | None = None
    moved: list[Line] = field(default_factory=list[Line])
    """Into the entry step, in order."""
    emitted: list[ast.expr] = field(default_factory=list[ast.expr])
    """Of what ``executor_main`` was given, what the entry step has to call itself."""
    parameters: tuple[str, ...] = ()
    entry_name: str = ""
    partial: set[str] = field(default_factory=set[str])
    """Names of the module of which single items are read."""
    apart: set[str] = field(default_factory=set[str])
    """Names that are given to functions which read single items of them."""
    imported: dict[str, Fate] = field(default_factory=dict[str, Fate])
    """What becomes of imported names where they are defined."""

    def functions(self) -> set[str]:
        """The names that become functions."""
        return {name for name, fate in self.fates.items() if fate in (Fate.FUNCTION, Fate.BUILDER)}

    def partial_makers(self) -> set[str]:
        """The names that are mappings of functions already, or become that."""
        return self.makers() | {name for name, fate in self.imported.items() if fate is Fate.MAKERS}

    def makers(self) -> set[str]:
        """The names that become mappings of functions."""
        return {name for name, fate in self.fates.items() if fate is Fate.MAKERS}


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the other files."""

    chosen: frozenset[str]
    """The files that are migrated together, as resolved paths."""
    imported: Mapping[str, frozenset[str]]
    """By resolved path of a file, the names that others import from it."""
    parts: Mapping[str, frozenset[str]]
    """Those of which others read single items."""


def step_path(path: Path) -> str:
    """The name of a file's steps: where it lies below the experiments."""
    resolved = path.resolve()
    parts = [*resolved.parts[:-1], *([] if resolved.stem == "__init__" else [resolved.stem])]
    is_experiment = "experiments" in parts[:-1]
    parts = parts[len(parts) - parts[::-1].index("experiments") :] if is_experiment else parts[-1:]
    return "/".join(re.sub(r"[^A-Za-z0-9._=+@,-]+", "-", part).strip(".") or "experiment" for part in parts)


def wanted_entry_name(module: Module) -> str:
    """What the entry step of a module is called, where nothing else is."""
    return re.sub(r"\W+", "_", f"run_{step_path(module.path).rpartition('/')[2]}").strip("_")


def plan_hoisting(module: Module, surroundings: Surroundings) -> HoistPlan:
    """What becomes of the statements of a module."""
    known: HoistPlan | None = module.memo.get("hoisting")
    if known is not None:
        return known
    # A module that imports itself in a circle sees nothing of itself.
    module.memo["hoisting"] = HoistPlan()
    entry = _entry_of(module)
    plan = _planned(module, entry, surroundings)
    if entry is not None and plan.entry is None:
        # What is listed stays as it is: a later round would not know that the list was left.
        plan = _planned(module, None, surroundings, listed=own_reads(entry.steps))
    module.memo["hoisting"] = plan
    return plan


def imported_fates(module: Module, surroundings: Surroundings) -> dict[str, Fate]:
    """What becomes of the names that a module imports, where they are defined in a file that is migrated as well."""
    fates: dict[str, Fate] = {}
    for name, bindings in module.root.bindings.items():
        for binding in bindings:
            fate = _imported_fate(binding, module, surroundings) if isinstance(binding, Imported) else None
            if fate is Fate.FUNCTION or fate is Fate.BUILDER or fate is Fate.MAKERS:
                fates[name] = fate
    return fates


def _imported_fate(binding: Imported, module: Module, surroundings: Surroundings, depth: int = 0) -> Fate | None:
    owner = module.project.module_of(module, module.absolute(binding.module))
    if owner is None or binding.attribute is None or depth > 8:
        return None
    match owner.root.bindings.get(binding.attribute, []):
        case [Imported() as further]:
            return _imported_fate(further, owner, surroundings, depth + 1)
        case _:
            is_chosen = str(owner.resolved) in surroundings.chosen
            return plan_hoisting(owner, surroundings).fates.get(binding.attribute) if is_chosen else None


def _entry_of(module: Module) -> Entry | None:
    for call, steps in executor_calls(module):
        if steps is None or not needs_entry(steps, module):
            continue
        around = [module.statement(call), *(node for node in module.ancestors(call) if isinstance(node, ast.stmt))]
        holder = around[-1]
        if isinstance(holder, ast.ClassDef | ast.AsyncFunctionDef):
            continue
        return Entry(call, steps, holder, _block_of(holder))
    return None


def _block_of(holder: ast.stmt) -> list[ast.stmt]:
    """The statements of ``if __name__ == "__main__":`` or of a function, which may build what it is given."""
    match holder:
        case ast.FunctionDef(body=body):
            return body
        case ast.If(test=test, body=body) if is_main_test(test):
            return body
        case _:
            return []


def _planned(module: Module, entry: Entry | None, surroundings: Surroundings, listed: Iterable[str] = ()) -> HoistPlan:
    lines = _lines(module, entry, surroundings)
    spread(lines)
    plan = HoistPlan(lines=lines)
    shared = _shared_names(module, entry, surroundings)
    needed = needed_names(lines, set() if entry is None else own_reads(entry.steps))
    plan.partial = names_read_in_parts(module) | surroundings.parts.get(str(module.resolved), frozenset())
    plan.imported = imported_fates(module, surroundings)
    plan.apart = names_taken_apart(module) & dependent_names(lines).keys()
    if entry is not None:
        parts = {name for name in needed if _is_read_in_parts_only(name, plan, entry)}
        several = {name for name in parts if _holds_several(name, lines, module)}
        if any(line.in_main for line in lines if line.binds & (plan.apart | several)):
            return HoistPlan()
        shared |= parts
    # Twice: what becomes of a mapping depends on what becomes of the mappings that it is made of.
    for _ in range(2):
        plan.fates = _first_fates(plan, module, shared, needed if entry is not None else set())
        plan.fates |= {name: Fate.LEFT for name in listed if name in plan.fates}
    if not _settle(plan, module, entry):
        return HoistPlan()
    if entry is not None:
        emitted = _emitted(entry.steps, plan, module)
        if emitted is None or _lists_made_elsewhere(entry, plan, module):
            return HoistPlan()
        plan.emitted = emitted
        plan.moved = [line for line in lines if _is_moved(line, plan)]
        plan.entry = entry
        plan.parameters = _entry_parameters(plan, entry, module)
        plan.entry_name = fresh_name(wanted_entry_name(module), module)
    return plan


def _lines(module: Module, entry: Entry | None, surroundings: Surroundings) -> list[Line]:
    imported = set(imported_fates(module, surroundings))
    holder = entry.holder if entry is not None else None
    lines = [line_of(node, module, imported, in_main=False) for node in module.tree.body if node is not holder]
    if entry is not None:
        index = next((i for i, node in enumerate(entry.block) if _holds(node, entry.call)), 0)
        lines += [line_of(node, module, imported, in_main=True) for node in entry.block[:index]]
    return lines


def _holds(node: ast.AST, wanted: ast.AST) -> bool:
    return any(inner is wanted for inner in ast.walk(node))


def _shared_names(module: Module, entry: Entry | None, surroundings: Surroundings) -> set[str]:
    """The names of the module that functions and classes, or other modules, read."""
    shared = set(surroundings.imported.get(str(module.resolved), frozenset()))
    for node in module.tree.body:
        if isinstance(node, DEFINITIONS) and (entry is None or node is not entry.holder):
            shared |= names_read_inside(node, module)
    for node in module.nodes(ast.Lambda):
        if module.place(node).scope.is_module:
            shared |= names_read_inside(node, module)
    exports = [line for line in module.tree.body if isinstance(line, ast.Assign) and _is_all(line)]
    shared |= {
        text.value
        for line in exports
        for text in ast.walk(line)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }
    return shared


def _is_all(line: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in line.targets)


def _first_fates(plan: HoistPlan, module: Module, shared: set[str], needed: set[str]) -> dict[str, Fate]:
    fates: dict[str, Fate] = {}
    for name, lines in dependent_names(plan.lines).items():
        is_shared = name in shared and not all(line.in_main for line in lines)
        is_older = any(_constructs_older(line.node, module) for line in lines if not line.in_main)
        if name in needed and not is_shared and not is_older and name not in plan.apart:
            fates[name] = Fate.LOCAL
        else:
            fates[name] = _own_fate(name, lines, plan, module)
    return fates


def _own_fate(name: str, lines: list[Line], plan: HoistPlan, module: Module) -> Fate:
    """What becomes of a name that is no local of the entry step."""
    if any(line.in_main or shares_its_line(line, module) for line in lines) or name in plan.apart:
        return Fate.LEFT
    # As a function it would be taken for one that a later round can rewrite.
    if any(_constructs_older(line.node, module) for line in lines):
        return Fate.LEFT
    # A function gives what a name is in the end, and reads what others are in the end.
    if any(_early_reads(line, module) for line in lines) or any(
        name in _early_reads(line, module) for line in plan.lines if line.depends
    ):
        return Fate.LEFT
    if len(lines) == 1 and is_simple(lines[0].node):
        return _simple_fate(name, lines[0].node, plan, module)
    if name in plan.partial:
        return Fate.LEFT
    return Fate.BUILDER if _is_buildable(name, lines, plan, module) else Fate.LEFT


def _early_reads(line: Line, module: Module) -> set[str]:
    """The names that a statement reads and that later ones change."""
    return names_changed_after(line.node, module) - line.binds


def _simple_fate(name: str, node: ast.stmt, plan: HoistPlan, module: Module) -> Fate:
    """What becomes of a name that one assignment binds.

    Calling a function that makes several steps wants all of them. Where only some are read, each needs a function.
    """
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if name not in plan.partial or value is None:
        return Fate.FUNCTION
    if isinstance(value, ast.Dict | ast.DictComp):
        return Fate.MAKERS if is_makeable(value, plan) else Fate.LEFT
    is_several = isinstance(value, ast.List | ast.Tuple | ast.ListComp)
    return Fate.LEFT if is_several or kind_of(value, module) in (Kind.REFS, Kind.MAPPING) else Fate.FUNCTION


def is_makeable(value: ast.Dict | ast.DictComp, plan: HoistPlan) -> bool:
    """Whether a mapping can hold functions that make its values, without making any when the module is imported."""
    if isinstance(value, ast.Dict):
        early = [key for key in value.keys if key is not None]
        return len(early) == len(value.keys) and not any(_depends(key, plan) for key in early)
    if len(value.generators) != 1 or value.generators[0].is_async:
        return False
    [generator] = value.generators
    is_plain = not _depends(generator.iter, plan) or mapping_of_makers(generator.iter, plan) is not None
    return is_plain and not any(_depends(part, plan) for part in (value.key, *generator.ifs))


def mapping_of_makers(iterable: ast.expr, plan: HoistPlan) -> str | None:
    """The name in ``name.items()``, where it becomes a mapping of functions."""
    match iterable:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="items"), args=[]):
            return name if name in plan.partial_makers() else None
        case _:
            return None


def _depends(node: ast.expr, plan: HoistPlan) -> bool:
    return bool(own_reads(node) & (dependent_names(plan.lines).keys() | plan.imported.keys()))


def _is_read_in_parts_only(name: str, plan: HoistPlan, entry: Entry) -> bool:
    """Whether all that is read of a name are items with constant keys, so that others of its steps are not needed.

    What asks for its length wants none of its steps.
    """
    nodes = [inner for line in plan.lines if line.depends for inner in ast.walk(line.node)]
    nodes += list(ast.walk(entry.steps))
    changed = {id(node.value) for node in nodes if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)}
    items = {id(node.value) for node in nodes if isinstance(node, ast.Subscript) and _is_constant(node.slice)}
    sizes = {id(node.args[0]) for node in nodes if isinstance(node, ast.Call) and _is_length(node)}
    reads = [
        node for node in nodes if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
    ]
    wanted = [node for node in reads if id(node) not in changed | sizes]
    return any(id(node) in items for node in wanted) and all(id(node) in items for node in wanted)


def _holds_several(name: str, lines: list[Line], module: Module) -> bool:
    """Whether a name holds more than one step, of which an entry step would call all."""
    values = [line.node.value for line in lines if name in line.binds and isinstance(line.node, ast.Assign)]
    return any(kind_of(value, module) in (Kind.REFS, Kind.MAPPING) for value in values)


def _is_constant(index: ast.expr) -> bool:
    """Whether an index is the same each time: a slice takes the same part each time."""
    is_negative = isinstance(index, ast.UnaryOp) and isinstance(index.operand, ast.Constant)
    return isinstance(index, ast.Constant | ast.Slice) or is_negative


def _is_length(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "len" and len(call.args) == 1


def _is_buildable(name: str, lines: list[Line], plan: HoistPlan, module: Module) -> bool:
    """Whether the statements that build a name bind nothing that others read."""
    if not is_simple(lines[0].node) or any(isinstance(line.node, DEFINITIONS) for line in lines):
        return False
    others = {bound for line in lines for bound in line.binds} - {name}
    elsewhere = {read for line in plan.lines if line not in lines for read in line.reads | line.binds}
    inside = {
        read for node in module.tree.body if isinstance(node, DEFINITIONS) for read in names_read_inside(node, module)
    }
    return not others & (elsewhere | inside)


def _settle(plan: HoistPlan, module: Module, entry: Entry | None) -> bool:
    """Changes fates until each name can be read where it is read; False if the entry step cannot be made."""
    fates = plan.fates
    binders = dependent_names(plan.lines)
    remaining = _reads_that_remain(entry)

    def _stays(name: str) -> bool:
        return fates.get(name) is not Fate.LOCAL

    for _ in range(len(fates) + 2):
        wanted: set[str] = set(remaining)
        for line in plan.lines:
            stays = not _is_moved(line, plan) if line.depends else line.in_main
            wanted |= line.reads if stays else frozenset()
        lost = [name for name in wanted if fates.get(name) is Fate.LOCAL]
        mixed = [
            name
            for line in plan.lines
            if line.depends and not _is_moved(line, plan)
            for name in line.binds
            if fates.get(name) is Fate.LOCAL
        ]
        torn = [
            name
            for line in plan.lines
            if line.depends and _is_moved(line, plan) and any(map(_stays, _early_reads(line, module)))
            for name in line.binds
        ]
        if not lost and not mixed and not torn:
            return True
        for name in {*lost, *mixed, *torn}:
            if all(line.in_main for line in binders[name]):
                return False
            fates[name] = _own_fate(name, binders[name], plan, module)
    return False


def _reads_that_remain(entry: Entry | None) -> set[str]:
    """What is read beside and after the call of ``executor_main``."""
    if entry is None:
        return set()
    steps = {id(node) for node in ast.walk(entry.steps)}
    index = next((i for i, node in enumerate(entry.block) if _holds(node, entry.call)), 0)
    nodes = [inner for node in (entry.block[index:] or [entry.holder]) for inner in ast.walk(node)]
    return {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in steps}


def _is_moved(line: Line, plan: HoistPlan) -> bool:
    """Whether a statement goes into the entry step."""
    if not line.depends:
        return False
    if line.binds:
        return all(plan.fates.get(name) is Fate.LOCAL for name in line.binds)
    # An assertion or a log line about what goes there.
    read = [plan.fates[name] for name in line.reads if name in plan.fates]
    return bool(read) and all(fate is Fate.LOCAL for fate in read) and not line.calls_steps


def _lists_made_elsewhere(entry: Entry, plan: HoistPlan, module: Module) -> bool:
    """Whether a list for ``executor_main`` names steps that the entry step does not call: it would lose them."""
    lists = own_reads(entry.steps)
    for line in plan.lines:
        if not line.depends or not line.binds & lists:
            continue
        for node in ast.walk(line.node):
            if any(_is_made_elsewhere(item, plan, module) for item in _listed(node, lists)):
                return True
    return False


def _listed(node: ast.AST, lists: set[str]) -> list[ast.expr]:
    """What a statement or call puts into one of some lists."""
    match node:
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) | ast.AugAssign(value=value):
            given = [value]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute), args=given):
            given = given if name in lists and attribute in MUTATORS else []
        case _:
            given = []
    return [item for value in given for item in (value.elts if isinstance(value, ast.List | ast.Tuple) else [value])]


def _is_made_elsewhere(item: ast.expr, plan: HoistPlan, module: Module) -> bool:
    """Whether what is listed, or a part of it, was made where the entry step does not call it."""

    def any_of(*parts: ast.expr) -> bool:
        return any(_is_made_elsewhere(part, plan, module) for part in parts)

    match item:
        case ast.Call(func=ast.Name(id=name), args=args) if name in _COLLECTIONS:
            return any_of(*args)
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _PASSING_ON:
            return any_of(value)
        case ast.Call():
            return makes_older_steps(item, module)
        case ast.ListComp(elt=made, generators=loops) | ast.GeneratorExp(elt=made, generators=loops):
            return any_of(made) or (not isinstance(made, ast.Call) and any_of(*(loop.iter for loop in loops)))
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any_of(*parts)
        case ast.BinOp(left=left, right=right):
            return any_of(left, right)
        case ast.IfExp(body=left, orelse=right):
            return any_of(left, right)
        case ast.Subscript(value=value) | ast.Attribute(value=value) | ast.Starred(value=value):
            return any_of(value)
        case ast.Name(ctx=ast.Load()):
            return _is_bound_elsewhere(item, plan, module)
        case _:
            return False


def _is_bound_elsewhere(name: ast.Name, plan: HoistPlan, module: Module) -> bool:
    scope = module.place(name).scope.lookup(name.id)
    bindings = scope.bindings[name.id] if scope is not None else []
    is_value = any(isinstance(binding, Imported) for binding in bindings) and name.id not in plan.imported
    is_older = any(isinstance(b, Assigned) and _is_older(b.value, module) for b in bindings)
    looped = [binding.iterable for binding in bindings if isinstance(binding, Element)]
    is_item = any(_is_made_elsewhere(iterable, plan, module) for iterable in looped)
    return plan.fates.get(name.id) is Fate.LEFT or is_value or is_older or is_item


def _constructs_older(line: ast.stmt, module: Module) -> bool:
    """Whether a statement makes a step by the older constructor, other than in a function in it."""
    known: set[ast.AST] | None = module.memo.get("constructing")
    if known is None:
        known = module.memo["constructing"] = set[ast.AST]()
        for call in module.nodes(ast.Call):
            if module.framework_name(call.func) == "ExecutorStep":
                outside = itertools.takewhile(lambda node: not isinstance(node, _FUNCTIONS), module.ancestors(call))
                known.update(outside)
    return line in known


def _is_older(value: ast.expr, module: Module) -> bool:
    constructs = isinstance(value, ast.Call) and module.framework_name(value.func) == "ExecutorStep"
    return constructs or (isinstance(value, ast.Call) and makes_older_steps(value, module))


def _emitted(steps: ast.expr, plan: HoistPlan, module: Module) -> list[ast.expr] | None:
    """Of what ``executor_main`` is given, what the entry step has to call; None where that cannot be told."""
    match steps:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            parts = [_emitted(item, plan, module) for item in items]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_emitted(side, plan, module) for side in (left, right)]
        case ast.Starred(value=value) | ast.BinOp(left=value, op=ast.Div()):
            return _emitted(value, plan, module)
        case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted" | "set"), args=[value], keywords=[]):
            return _emitted(value, plan, module)
        case ast.Call(func=ast.Attribute(value=value, attr="values" | "cd" | "nonblocking")):
            return _emitted(value, plan, module)
        case ast.Name(id=name):
            return _emitted_name(steps, name, plan)
        case ast.Call() if calls_steps(steps, module) and not makes_older_steps(steps, module):
            return [steps]
        case ast.Subscript(value=ast.Name(id=name)):
            return [steps] if (plan.fates.get(name) or plan.imported.get(name)) is Fate.MAKERS else None
        case ast.ListComp(generators=[_]) | ast.GeneratorExp(generators=[_]):
            return _emitted_loop(steps, plan, module)
        case _:
            return None
    flat: list[ast.expr] = []
    for part in parts:
        if part is None:
            return None
        flat += part
    return flat


def _emitted_name(node: ast.Name, name: str, plan: HoistPlan) -> list[ast.expr] | None:
    fate = plan.fates.get(name) or plan.imported.get(name)
    if fate is Fate.LOCAL:
        return []
    return [node] if fate in (Fate.FUNCTION, Fate.BUILDER, Fate.MAKERS) else None


def _emitted_loop(node: ast.ListComp | ast.GeneratorExp, plan: HoistPlan, module: Module) -> list[ast.expr] | None:
    [generator] = node.generators
    makes = any(isinstance(part, ast.Call) and calls_steps(part, module) for part in ast.walk(node.elt))
    if makes and not generator.is_async:
        return [node]
    passes_on = isinstance(node.elt, ast.Name) and ast.unparse(node.elt) == ast.unparse(generator.target)
    is_local = isinstance(generator.iter, ast.Name) and plan.fates.get(generator.iter.id) is Fate.LOCAL
    return [] if passes_on and is_local and not generator.ifs else None


def _entry_parameters(plan: HoistPlan, entry: Entry, module: Module) -> tuple[str, ...]:
    """Names of the block around ``executor_main`` that the entry step reads and that stay where they are."""
    stay = {name for line in plan.lines if line.in_main and not _is_moved(line, plan) for name in line.binds}
    if isinstance(entry.holder, ast.FunctionDef):
        gone = {name for line in plan.moved if line.in_main for name in line.binds}
        stay |= set(module.scope_in(entry.holder).bindings) - gone
    read = {name for line in plan.moved for name in line.reads}
    read |= {name for part in plan.emitted for name in own_reads(part)}
    return tuple(sorted(read & stay))


def is_group(name: str, lines: list[Line], module: Module) -> bool:
    """Whether a function that gives a name's value can be a step: it returns refs, and not its caller's own output."""
    return kind_of_built(name, lines, module) in (Kind.REF, Kind.REFS, Kind.MAPPING) and not any(
        isinstance(node, ast.expr) and is_own_output(node, module) for line in lines for node in ast.walk(line.node)
    )


def kind_of_built(name: str, lines: list[Line], module: Module) -> Kind:
    """What the value of a name is that some statements build."""
    first = lines[0].node
    if len(lines) == 1 and isinstance(first, ast.Assign | ast.AnnAssign) and first.value is not None:
        return kind_of(first.value, module)
    kinds: set[Kind] = set()
    for node in (inner for line in lines[1:] for inner in ast.walk(line.node)):
        match node:
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=target))], value=value) if target == name:
                kinds.add(Kind.MAPPING if kind_of(value, module) is Kind.REF else Kind.UNKNOWN)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=target), attr="append"), args=[value]) if target == name:
                kinds.add(Kind.REFS if kind_of(value, module) is Kind.REF else Kind.UNKNOWN)
            case ast.Name(id=target, ctx=ast.Store()) if target == name:
                kinds.add(Kind.UNKNOWN)
            case _:
                pass
    return kinds.pop() if len(kinds) == 1 else Kind.UNKNOWN
