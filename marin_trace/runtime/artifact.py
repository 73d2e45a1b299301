"""`Artifact`: what a step's function returned, as JSON beside its output, typed by its annotation. Never pickle.

``<output>/.artifact.json`` holds one JSON value; arrays lie beside it as ``.artifact-<digest>.npy`` and are named in
it. Writing is all or nothing: the value is encoded whole before anything is written, arrays go first under names
that their content gives, and the JSON appears by one rename.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Protocol, final, runtime_checkable

from marin_trace.errors import ArtifactError, PrefixError, explain
from marin_trace.runtime.artifact_annotations import check_serialisable_annotation
from marin_trace.runtime.artifact_decoding import Decoder, read_plain
from marin_trace.runtime.artifact_encoding import Encoder
from marin_trace.storage.bounded import LARGEST_ARTIFACT, MAX_DEPTH, is_deeper, json_bytes, parsed_json
from marin_trace.storage.control_store import SUPPORTED_PROTOCOLS, patient_store_for
from marin_trace.storage.files import join, protocol_of, read_bytes, write_bytes

__all__ = ["ARTIFACT_FILE", "Artifact", "ArtifactLoader", "check_serialisable_annotation"]

ARTIFACT_FILE: Final = ".artifact.json"

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@runtime_checkable
class _HasOutputPath(Protocol):
    @property
    def output_path(self) -> str: ...


@final
class Artifact:
    """Saving and loading what steps return.

    Example:
        >>> import tempfile
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Corpus:
        ...     files: int
        ...     languages: tuple[str, ...]
        >>> path = tempfile.mkdtemp()
        >>> Artifact.save(Corpus(3, ("en", "de")), path)
        >>> Artifact.load(path)
        {'files': 3, 'languages': ['en', 'de']}
        >>> Artifact.load(path, Corpus)
        Corpus(files=3, languages=('en', 'de'))
    """

    @staticmethod
    def save(value: Any, path: str) -> None:
        """Writes a value beside an output.

        Args:
            value: JSON values, dataclasses, pydantic models, enums, paths, dates, bytes, tuples, sets, NumPy and JAX
                arrays, nested in any way.
            path: The output path.

        Raises:
            ArtifactError: A part of it cannot be stored: the message names where in the value, and its type; or all of
                it is too large or too deep for JSON. Nothing was written.
        """
        encoder = Encoder()
        tree = _encoded(encoder, value)
        rendered = json_bytes(_ENCODER.encode(tree))
        if len(rendered) > LARGEST_ARTIFACT:
            raise ArtifactError(
                explain(
                    f"what was returned cannot be stored: as JSON it has {len(rendered) >> 20} MiB, and at most "
                    f"{LARGEST_ARTIFACT >> 20} MiB are read back",
                    hint="write large data into files below output(), and return where they lie",
                )
            )
        for name, content in encoder.arrays.items():
            write_bytes(join(path, name), content)
        patient_store_for(path).put(join(path, ARTIFACT_FILE), rendered)

    @staticmethod
    def load(path_or_spec: Any, artifact_type: Any = None) -> Any:
        """Reads the value beside an output.

        Args:
            path_or_spec: The output path, or anything with an ``output_path`` (and perhaps an ``artifact_type``).
            artifact_type: The annotation to build the value by; without one, plain JSON values come back.

        Raises:
            ArtifactError: There is none, or it does not fit the annotation: the message names the field.
            StorageError: It cannot be read, or is larger than anything that `save` writes.
        """
        if isinstance(path_or_spec, _HasOutputPath):
            path = path_or_spec.output_path
            artifact_type = artifact_type if artifact_type is not None else getattr(path_or_spec, "artifact_type", None)
        else:
            path = str(path_or_spec)
        file = join(path, ARTIFACT_FILE)
        content = _read(file)
        if content is None and (adopted := _adopted_from(path)) is not None:
            # An adopted output has its artifact, if any, where its data lies.
            path, file = adopted, join(adopted, ARTIFACT_FILE)
            content = _read(file)
        if content is None:
            raise ArtifactError(explain(f"there is no artifact at {file}", hint="has the step been run?"))
        try:
            tree = parsed_json(content)
        except ValueError as error:
            raise ArtifactError(explain(f"the artifact {file} is truncated or corrupt: {error}")) from error
        try:
            return read_plain(tree, path) if artifact_type is None else Decoder(path).decode(artifact_type, tree)
        except ArtifactError as error:
            raise _naming_file(error, file) from error.__cause__


@final
@dataclass(frozen=True, slots=True)
class ArtifactLoader:
    """``load`` of a cached step: its artifact, as the type that it is annotated to return. Travels with jobs."""

    artifact_type: Any

    def __call__(self, output_path: str) -> Any:
        """Reads it. See `Artifact.load`."""
        return Artifact.load(output_path, self.artifact_type)


def _encoded(encoder: Encoder, value: Any) -> Any:
    try:
        tree = encoder.encode(value)
        if not is_deeper(tree, MAX_DEPTH):
            return tree
    except RecursionError as error:
        raise _too_deep() from error
    raise _too_deep()


def _too_deep() -> ArtifactError:
    return ArtifactError(
        explain(
            f"what was returned cannot be stored: it is nested more than {MAX_DEPTH} deep",
            hint="return a flat list of its parts, or write it into a file below output()",
        )
    )


def _read(file: str) -> bytes | None:
    if protocol_of(file) in SUPPORTED_PROTOCOLS:
        return patient_store_for(file).get(file, limit=LARGEST_ARTIFACT)
    try:
        return read_bytes(file, limit=LARGEST_ARTIFACT)
    except FileNotFoundError:
        return None


def _adopted_from(path: str) -> str | None:
    """Where the data of an output lies, if another was adopted for it."""
    from marin_trace.runtime.status import read_status

    try:
        return read_status(path).adopted_from
    except PrefixError:  # values may also be saved where no output can lie
        return None


def _naming_file(error: ArtifactError, file: str) -> ArtifactError:
    """The error, with the file that it is about below its first line."""
    summary, newline, rest = str(error).partition("\n")
    return error if file in str(error) else ArtifactError(f"{summary}\n  in {file}{newline}{rest}")
