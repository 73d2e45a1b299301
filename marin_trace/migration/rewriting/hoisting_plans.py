"""What a module builds when it is imported, and where that goes instead.

A statement *depends on steps* if it calls one, or reads a name that such a statement binds. It goes

- into the entry step, where only what ``executor_main`` is given needs it;
- into a function of its own, where functions or other modules read what it binds, and each reader calls that;
- nowhere, where neither would mean the same: it stays, and lint names it.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from marin_trace.migration.inference import is_own_output, kind_of
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import names_changed_after
from marin_trace.migration.rewriting.fates import SEEN_OUTSIDE, Entry, Fate, HoistPlan, Surroundings
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
from marin_trace.migration.rewriting.listed_steps import constructs_older, emitted_steps, lists_made_elsewhere
from marin_trace.migration.rules.entry import executor_calls, needs_entry
from marin_trace.migration.scopes import Imported, is_main_test


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
            if fate is not None and fate in SEEN_OUTSIDE:
                fates[name] = fate
    return fates


def attribute_fates(module: Module, surroundings: Surroundings) -> dict[ast.Attribute, Fate]:
    """What becomes of the names of other modules that a module reads as ``module.name``, by the expressions."""
    fates: dict[ast.Attribute, Fate] = {}
    for node in module.nodes(ast.Attribute):
        qualified = module.qualified(node) if isinstance(node.ctx, ast.Load) else None
        if qualified is not None and "." in qualified:
            source, _, name = qualified.rpartition(".")
            fate = _imported_fate(Imported(source, name), module, surroundings)
            if fate is not None and fate in SEEN_OUTSIDE:
                fates[node] = fate
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
        emitted = emitted_steps(entry.steps, plan, module)
        if emitted is None or lists_made_elsewhere(entry, plan, module):
            return HoistPlan()
        plan.emitted = emitted
        plan.moved = [line for line in lines if _is_moved(line, plan)]
        plan.entry = entry
        plan.parameters = _entry_parameters(plan, entry, module)
        plan.entry_name = fresh_name(wanted_entry_name(module), module)
    return plan


def _lines(module: Module, entry: Entry | None, surroundings: Surroundings) -> list[Line]:
    imported = {*imported_fates(module, surroundings), *attribute_fates(module, surroundings)}
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
        is_older = any(constructs_older(line.node, module) for line in lines if not line.in_main)
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
    if any(constructs_older(line.node, module) for line in lines):
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
    if isinstance(value, ast.List | ast.ListComp):
        return Fate.LISTED if _is_listable(value, plan) else Fate.LEFT
    is_several = isinstance(value, ast.Tuple) or kind_of(value, module) in (Kind.REFS, Kind.MAPPING)
    return Fate.LEFT if is_several else Fate.FUNCTION


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


def _is_listable(value: ast.List | ast.ListComp, plan: HoistPlan) -> bool:
    """Whether a list can hold functions that make its items, without making any when the module is imported."""
    if isinstance(value, ast.List):
        return not any(isinstance(item, ast.Starred) for item in value.elts)
    [generator, *others] = value.generators
    early = (generator.iter, *generator.ifs)
    return not others and not generator.is_async and not any(_depends(part, plan) for part in early)


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
