"""Gives a process the wall clock of another machine: `SOAK_SKEW_S` seconds off. Python runs it as it starts.

`time.time`, `time.time_ns` and the current time of `datetime` are shifted. Clocks that count from the boot are not: no
two machines agree on those anyway.
"""

import datetime
import os
import time

SKEW_S = float(os.environ.get("SOAK_SKEW_S", "0"))

real_time, real_time_ns = time.time, time.time_ns


def skewed_time() -> float:
    return real_time() + SKEW_S


def skewed_time_ns() -> int:
    return real_time_ns() + int(SKEW_S * 1e9)


class SkewedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return cls.fromtimestamp(skewed_time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.now(datetime.UTC).replace(tzinfo=None)


time.time, time.time_ns = skewed_time, skewed_time_ns
datetime.datetime = SkewedDatetime
