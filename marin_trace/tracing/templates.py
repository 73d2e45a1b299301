"""Templates over the bound arguments of a call: ``"tokenize/{name}"``."""

import string
from collections.abc import Mapping
from typing import Any

from marin_trace.errors import ConcretizationError, StepNameError, explain
from marin_trace.ir.location import Location
from marin_trace.ir.refs import Projection, StepRef, TracedValue


def fields_of(template: str) -> tuple[str, ...]:
    """The names that a template needs.

    Raises:
        StepNameError: The template cannot be read, or has a field without a name.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise StepNameError(
            explain(f"{template!r} is not a template: {error}", hint='write "tokenize/{name}"')
        ) from None
    if any(not field or field[0].isdigit() for field in fields):
        raise StepNameError(
            explain(f"{template!r} has a field without a name", hint='name the parameter: "tokenize/{name}"')
        )
    return tuple(fields)


def rendered(template: str, arguments: Mapping[str, Any], *, what: str, location: Location) -> str:
    """A template with the arguments of a call filled in.

    Args:
        template: As ``str.format`` takes it; ``{cfg.lr}`` and ``{cfg.lr:.0e}`` work.
        arguments: By parameter name; those of ``**kwargs`` under their own names.
        what: What the template is for, in messages.
        location: The user's line of the call.

    Raises:
        StepNameError: It names something that is not there, or formats a ref or a placeholder.
    """
    try:
        return template.format_map(arguments)
    except ConcretizationError:
        raise _formats_a_ref(template, arguments, what, location) from None
    except (KeyError, AttributeError, IndexError, ValueError, TypeError) as error:
        missing = f"no argument {error}" if isinstance(error, KeyError) else str(error)
        raise StepNameError(
            explain(
                f"cannot fill in the {what} {template!r}: {missing}",
                at=location,
                facts={"arguments": ", ".join(arguments) or "none"},
            )
        ) from None


def _formats_a_ref(template: str, arguments: Mapping[str, Any], what: str, location: Location) -> StepNameError:
    for field in fields_of(template):
        name = field.partition(".")[0].partition("[")[0]
        value = string.Formatter().get_field(field, (), arguments)[0]
        if isinstance(value, StepRef):
            return StepNameError(
                explain(
                    f"cannot fill in the {what} {template!r}: {name} is {value!r}, which has no text",
                    at=location,
                    hint=f"write {template.replace('{' + field, '{' + field + '.name')!r}",
                )
            )
        if isinstance(value, TracedValue):
            kind = "a deferred result" if isinstance(value, Projection) else "unversioned, and the name is identity"
            return StepNameError(
                explain(
                    f"cannot fill in the {what} {template!r}: {name} is {kind}",
                    at=location,
                    hint="use a parameter that is plain text or a number",
                )
            )
    return StepNameError(explain(f"cannot fill in the {what} {template!r}: an argument holds a ref", at=location))
