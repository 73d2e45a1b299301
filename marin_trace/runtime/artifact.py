"""`Artifact`: what a step's function returned, as JSON beside its output, typed by its annotation. Never pickle.

``<output>/.artifact.json`` holds one JSON value; arrays lie beside it as ``.artifact-<digest>.npy`` and are named in
it. Writing is all or nothing: the value is encoded whole before anything is written, arrays go first under names
that their content gives, and the JSON appears by one rename.
"""

import json
from typing import Any, Final, Protocol, final, runtime_checkable

from marin_trace.errors import ArtifactError, PrefixError, explain
from marin_trace.runtime.artifact_annotations import check_serialisable_annotation
from marin_trace.runtime.artifact_decoding import Decoder, read_plain
from marin_trace.runtime.artifact_encoding import Encoder
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import join, read_bytes, write_bytes

__all__ = ["ARTIFACT_FILE", "Artifact", "check_serialisable_annotation"]

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
            ArtifactError: A part of it cannot be stored: the message names where in the value, and its type. Nothing
                was written.
        """
        encoder = Encoder()
        tree = encoder.encode(value)
        for name, content in encoder.arrays.items():
            write_bytes(join(path, name), content)
        content = _ENCODER.encode(tree)
        patient_store_for(path).put(join(path, ARTIFACT_FILE), content.encode("utf-8", "surrogatepass"))

    @staticmethod
    def load(path_or_spec: Any, artifact_type: Any = None) -> Any:
        """Reads the value beside an output.

        Args:
            path_or_spec: The output path, or anything with an ``output_path`` (and perhaps an ``artifact_type``).
            artifact_type: The annotation to build the value by; without one, plain JSON values come back.

        Raises:
            ArtifactError: There is none, or it does not fit the annotation: the message names the field.
        """
        if isinstance(path_or_spec, _HasOutputPath):
            path = path_or_spec.output_path
            artifact_type = artifact_type if artifact_type is not None else getattr(path_or_spec, "artifact_type", None)
        else:
            path = str(path_or_spec)
        file = join(path, ARTIFACT_FILE)
        try:
            content = read_bytes(file)
        except FileNotFoundError:
            # An adopted output has its artifact, if any, where its data lies.
            path = _adopted_from(path) or path
            file = join(path, ARTIFACT_FILE)
            content = _content_of(file)
        try:
            tree = json.loads(content.decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ArtifactError(explain(f"the artifact {file} is truncated or corrupt: {error}")) from error
        if artifact_type is None:
            return read_plain(tree, path)
        try:
            return Decoder(path).decode(artifact_type, tree)
        except ArtifactError as error:
            raise _naming_file(error, file) from error.__cause__


def _content_of(file: str) -> bytes:
    try:
        return read_bytes(file)
    except FileNotFoundError as error:
        raise ArtifactError(explain(f"there is no artifact at {file}", hint="has the step been run?")) from error


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
