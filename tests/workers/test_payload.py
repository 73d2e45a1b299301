"""Laws of payloads: what cannot travel is named by the variable that holds it."""

import functools
import pickle
import threading
from dataclasses import dataclass

import pytest

from marin_trace.errors import UnpicklableError
from marin_trace.workers.payload import pickled_call

LOCK = threading.Lock()


@dataclass(slots=True)
class Settings:
    lock: object


class Tool:
    def __init__(self) -> None:
        self.lock = LOCK

    def work(self) -> None: ...


def calls():
    lock, settings, table = LOCK, Settings(LOCK), {"a": [LOCK]}
    text = "fine"

    def with_default(lock=lock):
        return lock

    def with_keyword(*, handle=lock):
        return handle

    return {
        "lock": lambda: (text, lock),
        "settings.lock": lambda: (text, settings),
        "table['a'][0]": lambda: table,
        "handle": functools.partial(with_keyword),
        "argument 1": functools.partial(print, lock),
        "end": functools.partial(print, end=lock),
        "self.lock": Tool().work,
    } | {"lock ": with_default}


@pytest.mark.parametrize("label", calls())
def test_the_variable_is_named_with_its_type(label: str) -> None:
    with pytest.raises(UnpicklableError, match=r"^tiny captures `.*`, a _thread.lock that cannot be sent") as caught:
        pickled_call(calls()[label], "tiny")
    assert f"`{label.strip()}`" in str(caught.value)


def test_the_function_is_named_by_its_line_and_the_cause_is_kept() -> None:
    lock = LOCK
    with pytest.raises(UnpicklableError, match=r"test_payload.py:\d+\n") as caught:
        pickled_call(lambda: lock, "tiny")
    assert isinstance(caught.value.__cause__, TypeError)
    assert "make it inside the function" in str(caught.value)


class Refusing:
    def __reduce__(self):
        raise RuntimeError


def test_a_value_that_refuses_without_a_word_is_named_all_the_same() -> None:
    value = Refusing()
    with pytest.raises(UnpicklableError, match=r"captures `value`, a .*Refusing that cannot .*: RuntimeError"):
        pickled_call(lambda: value, "tiny")


def test_what_can_travel_arrives() -> None:
    number = 41
    assert pickle.loads(pickled_call(lambda: number + 1, "tiny"))() == 42
