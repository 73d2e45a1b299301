"""StepSpecs: steps as the runner takes them. What lowering makes, and what can be written by hand."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast, final

from marin_trace.errors import ConfigTypeError, RunError, UnstableValueError, explain
from marin_trace.ir.canonical import identity_bytes
from marin_trace.ir.config_tree import Found, flatten, short_repr
from marin_trace.ir.graph import NO_OPTIONS, Node, Options, checked_override
from marin_trace.ir.location import Location, user_location
from marin_trace.ir.names import checked_output_name
from marin_trace.ir.printer import print_value
from marin_trace.ir.refs import is_absolute
from marin_trace.lowering.body import LoweredBody
from marin_trace.lowering.paths import name_with_hash, normal_prefix
from marin_trace.lowering.recipe import advisory_digests, config_json, function_source, recipe_parts, spec_parts
from marin_trace.runtime.prefix import current_prefix

if TYPE_CHECKING:
    from marin_trace.runtime.executable import Executable
    from marin_trace.runtime.options import RunOptions
    from marin_trace.runtime.records import StepRecord

_LONGEST_VERSION: Final = 1 << 20
"""Characters of a version that is written beside an output: it holds those of all that is read, nested."""
_DEEPEST_VERSION: Final = 64

SPEC_SCHEME = b"marin_trace spec 1\n"
"""Begins the recipe of a hand-written spec."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StepSpec:
    """One step, ready to be run: a function of its output path, and what must be finished before.

    **Phase**: lower time. ``lower`` makes them; they can also be written by hand. Specs are equal when name,
    fingerprint and the explicit prefix or override are.

    Raises:
        ConfigTypeError: ``deps`` holds something else than specs.
        StepNameError: The name or the override is not safe.
        UnstableValueError: ``hash_attrs`` holds a value without a stable identity.

    Example:
        >>> from marin_trace import StepSpec
        >>> raw = StepSpec("raw", hash_attrs={"url": "http://x"}, output_path_prefix="/data")
        >>> StepSpec("clean", deps=[raw], output_path_prefix="/data").dep_paths == [raw.output_path]
        True
    """

    name: str
    deps: "list[StepSpec]" = field(default_factory=list["StepSpec"])
    """All that it waits for. Their fingerprints are part of this one's, in order."""
    hash_attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else identifies it; ``fn`` does not."""
    fn: Callable[[str], Any] | None = None
    """Gets the output path; what it returns is the artifact. Without one the step can be planned and found finished."""
    output_path_prefix: str | None = None
    """Where it lies; None: under the run's prefix."""
    override_output_path: str | None = None
    """Instead of ``{name}-{hash}``: relative to the prefix, or absolute."""
    _: KW_ONLY
    _fingerprint: str | None = None
    _nonblocking: "tuple[StepSpec, ...]" = ()
    _order_only: "tuple[StepSpec, ...]" = ()
    _options: Options = NO_OPTIONS
    _location: Location | None = None
    fingerprint: str = field(init=False)
    """The identity of the recipe: 64 hex digits."""
    _path: str | None = field(init=False)
    """The output path, where it does not depend on the run's prefix."""

    def __post_init__(self) -> None:
        location = user_location() if self._location is None else self._location
        checked_output_name(self.name, at=location)
        if self.override_output_path is not None:
            object.__setattr__(self, "override_output_path", checked_override(self.override_output_path, at=location))
        prefix = self.output_path_prefix
        if prefix is not None and (prefix.endswith("/") or not is_absolute(prefix)):
            object.__setattr__(self, "output_path_prefix", normal_prefix(prefix))
        if self._fingerprint is not None:
            object.__setattr__(self, "fingerprint", self._fingerprint)
            object.__setattr__(self, "_path", self._fixed_path())
            return
        _check_deps(self.name, self.deps, location)
        object.__setattr__(self, "deps", list(self.deps))
        if self._location is None:
            object.__setattr__(self, "_location", location)
        object.__setattr__(self, "fingerprint", _spec_fingerprint(self, location))
        object.__setattr__(self, "_path", self._fixed_path())

    @property
    def dep_paths(self) -> list[str]:
        """The output paths of :attr:`deps`."""
        return [dep.output_path for dep in self.deps]

    @property
    def hash_id(self) -> str:
        """The first 8 hex digits of the fingerprint."""
        return self.fingerprint[:8]

    @property
    def name_with_hash(self) -> str:
        """``{name}-{hash_id}``."""
        return name_with_hash(self.name, self.fingerprint)

    @property
    def output_path(self) -> str:
        """Where it writes: absolute; without an explicit prefix, under the current run's."""
        if self._path is not None:
            return self._path
        return f"{current_prefix()}/{self.override_output_path or self.name_with_hash}"

    def _fixed_path(self) -> str | None:
        relative = self.override_output_path or self.name_with_hash
        if is_absolute(relative):
            return relative
        return None if self.output_path_prefix is None else f"{self.output_path_prefix}/{relative}"

    @property
    def nonblocking_deps(self) -> Sequence["StepSpec"]:
        """What it brings into a run without waiting for it."""
        return self._nonblocking

    @property
    def read_deps(self) -> Sequence["StepSpec"]:
        """What its recipe reads: all deps of a hand-written spec; of a lowered one, no ordering edges."""
        if not isinstance(self.fn, LoweredBody):
            return self.deps
        read = {edge.producer for edge in self.fn.node.edges if edge.reads}
        specs = {self.fn.spec_of_node(node).output_path for node in read if isinstance(node, Node)}
        return [dep for dep in (*self.deps, *self._nonblocking) if dep.output_path in specs]

    @property
    def order_only_deps(self) -> Collection["StepSpec"]:
        """Those of :attr:`deps` that it does not bring into a run itself."""
        return self._order_only

    @property
    def location(self) -> str | None:
        """``file:line`` of the call that made it."""
        return None if self._location is None else str(self._location)

    @property
    def template(self) -> str | None:
        """What its name was made from, the same for all calls of a step function; None for one written by hand."""
        node = self._node
        return None if node is None else node.template

    @property
    def functions(self) -> tuple[str, ...]:
        """``module:qualname`` of each call, in order."""
        node = self._node
        return (_function_name(self.fn),) if node is None else tuple(call.function.identity for call in node.calls)

    @property
    def options(self) -> Options:
        """The run options that were given."""
        return self._options

    @property
    def declared_cpu(self) -> float | None:
        """How many cores it asked for."""
        return getattr(self._options.resources, "cpu", None)

    @property
    def can_run(self) -> bool:
        """Whether it has a function."""
        return self.fn is not None

    @property
    def artifact_type(self) -> Any:
        """The annotation of what it returns, or None."""
        node = self._node
        return None if node is None or node.artifact_type is Any else node.artifact_type

    @property
    def _node(self) -> Node | None:
        return self.fn.node if isinstance(self.fn, LoweredBody) else None

    def recipe_parts(self) -> dict[str, str]:
        """What the fingerprint is made of: readable text by config path."""
        body = self.fn
        if isinstance(body, LoweredBody):
            return recipe_parts(body.node, lambda producer: body.spec_of_node(producer).name_with_hash)
        attrs = {name: flatten(value, []) for name, value in self.hash_attrs.items()}
        return spec_parts(self.name, attrs, [dep.name_with_hash for dep in self.deps])

    def record(self) -> "StepRecord":
        """What is written beside the output."""
        from marin_trace.runtime.records import StepRecord

        return StepRecord(
            name=self.name,
            fingerprint=self.fingerprint,
            parts=self.recipe_parts(),
            functions=self.functions,
            config=self.config(),
            deps=tuple(self.dep_paths),
            description=self._options.description,
            location=self.location,
            version=self._version(),
        )

    def _version(self) -> Any:
        foreign = None if self._node is None else self._node.foreign
        is_short = foreign is not None and len(foreign.text) <= _LONGEST_VERSION and foreign.depth <= _DEEPEST_VERSION
        return json.loads(foreign.text) if foreign is not None and is_short else None

    def config(self) -> Any:
        """What its calls get, unversioned values included, as a JSON value. Secrets are in it."""
        if isinstance(self.fn, LoweredBody):
            return config_json(self.fn.node, self.fn.path_of)
        return {name: print_value(flatten(value, [])) for name, value in self.hash_attrs.items()}

    def executable(self, options: "RunOptions") -> "Executable":
        """The step, ready to run: ``remote(Cached(distributed_lock(fn)))``, remote only where asked for.

        **Phase**: run time.

        Args:
            options: Of the run: forcing, lease, cluster.

        Raises:
            ResourcesUnavailableError: It asks for what the chosen place does not have.
            ArtifactError: What it is annotated to return cannot be saved.
            RunError: It was written by hand, and an output that it reads lies elsewhere: it would not be found.
        """
        from marin_trace.runtime.artifact import Artifact, ArtifactLoader, check_serialisable_annotation
        from marin_trace.runtime.disk_cache import Cached
        from marin_trace.runtime.distributed_lock import distributed_lock
        from marin_trace.runtime.options import AttemptOptions

        assert self.fn is not None
        given = self._options
        artifact_type = self.artifact_type
        if artifact_type is not None:
            check_serialisable_annotation(artifact_type)
        attempt = AttemptOptions.for_step(
            self.output_path,
            options,
            info=self.record(),
            digests=self.digests(),
            inputs=self._inputs(options.adopted),
            retries=given.retries or 0,
            fresh=bool(given.fresh),
        )
        if attempt.root is None and not is_absolute(self.override_output_path or ""):
            attempt = replace(attempt, root=self.output_path_prefix)
        body = self.fn.resolved(options.adopted) if isinstance(self.fn, LoweredBody) else self.fn
        locked = distributed_lock(body, force_run_failed=options.force_run_failed).with_options(attempt)
        cached = Cached(locked, Artifact.save, ArtifactLoader(artifact_type))
        if not any((given.resources, given.env_vars, given.pip_dependency_groups, given.timeout)):
            return cached
        from marin_trace.runtime.remote import RemoteCallable
        from marin_trace.workers.resources import ResourceConfig

        return RemoteCallable(
            cached,
            resources=given.resources or ResourceConfig(),
            env_vars=dict(given.env_vars or {}),
            pip_dependency_groups=given.pip_dependency_groups or (),
            name=self.name,
            timeout=given.timeout,
            client=options.client,
        )

    def _inputs(self, adopted: Mapping[str, str]) -> tuple[str, ...]:
        """What it waits for and reads: outputs, and those that were adopted in their place."""
        paths = self.dep_paths
        found = {path: adopted[path] for path in paths if path in adopted}
        if found and not isinstance(self.fn, LoweredBody):
            path, source = next(iter(found.items()))
            raise RunError(
                explain(
                    f"{self.name} was written by hand, and would look for an adopted output at {path}",
                    at=self.location,
                    facts={"adopted from": source},
                    hint=f'give that step the path itself: override_output_path="{source}"',
                )
            )
        return (*paths, *found.values())

    def digests(self) -> dict[str, str]:
        """Of what is no part of the recipe and may matter: unversioned values, function sources."""
        node = self._node
        if node is not None:
            return advisory_digests(node)
        source = function_source(self.fn) if self.fn is not None else None
        return {} if source is None else {"sources": hashlib.sha256(source.encode()).hexdigest()}

    def _key(self) -> tuple[str, str, str | None, str | None]:
        return (self.name, self.fingerprint, self.output_path_prefix, self.override_output_path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepSpec) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"<StepSpec {self.name_with_hash}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, self._key())


def _restored(name: str, fingerprint: str, prefix: str | None, override: str | None) -> StepSpec:
    return StepSpec(name, output_path_prefix=prefix, override_output_path=override, _fingerprint=fingerprint)


def _check_deps(name: str, deps: object, location: object) -> None:
    wrong = [deps]
    if isinstance(deps, list | tuple):
        wrong = [dep for dep in cast("list[Any]", deps) if not isinstance(dep, StepSpec)]
    if wrong:
        raise ConfigTypeError(
            explain(
                f"a dependency of {name} is {short_repr(wrong[0])}: deps takes a list of StepSpecs",
                at=location,
                hint="lower a ref first: StepSpec(..., deps=lower(ref))",
            )
        )


def _spec_fingerprint(spec: StepSpec, location: object) -> str:
    found: list[Found] = []
    attrs = flatten(dict(spec.hash_attrs), found)
    if found:
        leaf, path, _ = found[0]
        raise UnstableValueError(
            explain(
                f"hash_attrs{path} of {spec.name} has no stable identity: {print_value(leaf)}",
                at=location,
                hint="give text, numbers, lists, dicts or dataclasses of them",
            )
        )
    parts = [spec.name, *(dep.fingerprint for dep in spec.deps)]
    return hashlib.sha256(SPEC_SCHEME + identity_bytes(flatten(parts, [])) + identity_bytes(attrs)).hexdigest()


def _function_name(fn: Callable[..., Any] | None) -> str:
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    return f"{module}:{name}" if module and name else type(fn).__qualname__
