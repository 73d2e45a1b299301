"""What a job's call raised, on its way to the launcher: pickled, with the traceback of the job's process as a note.

Unpickling runs code. Where an outcome lies in storage that others may write to, it is sealed with a key that only the
launcher and its job know, and one without the right seal is not opened.
"""

import hashlib
import hmac
import logging
import pickle
import traceback

from marin_trace.errors import JobFailedError, explain

__all__ = ["OutOfTime", "opened", "packed_error", "raisable", "sealed", "unpacked_error"]

logger = logging.getLogger(__name__)


class OutOfTime(KeyboardInterrupt):
    """Raised in the main thread of a job that takes longer than its timeout; no ``except Exception`` keeps it.

    To a step it is a verdict, where an interrupt is none.
    """


def raisable(error: BaseException) -> Exception:
    """What the launcher is told of an exception: one that it can raise without ending itself."""
    if isinstance(error, Exception):
        return error
    how = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"was ended by {error!r}"
    return JobFailedError(explain(f"the job's function {how}")).with_traceback(error.__traceback__)


def packed_error(error: Exception) -> bytes | None:
    """An exception as bytes, for `unpacked_error`; gains a note. None: it does not survive pickling."""
    error.add_note("in the job's process:\n" + "".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301 - an exception may pickle and yet not come back
    except Exception as inner:  # noqa: BLE001 - its text is in the log, and the launcher shows that
        logger.warning(f"{type(error).__name__} cannot be handed over: {inner!r}")
        return None
    return content


def unpacked_error(content: bytes) -> Exception:
    """What `packed_error` packed. Only for bytes that a job of this launcher's own wrote."""
    error: Exception = pickle.loads(content)  # noqa: S301 - the launcher's own function raised it
    return error


def sealed(content: bytes, key: bytes) -> bytes:
    """Content behind a seal, for `opened`."""
    return hmac.digest(key, content, hashlib.sha256) + content


def opened(record: bytes, key: bytes) -> bytes | None:
    """What was sealed with this key; None: this was not."""
    size = hashlib.sha256().digest_size
    content = record[size:]
    return content if hmac.compare_digest(hmac.digest(key, content, hashlib.sha256), record[:size]) else None
