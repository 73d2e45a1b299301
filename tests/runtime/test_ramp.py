"""Laws of the width of a run."""

import pytest

from marin_trace.runtime.ramp import Ramp


def widths_of(ramp: Ramp, ends: list[int]) -> list[int]:
    widths: list[int] = []
    for count in ends:
        for _ in range(count):
            ramp.count_end()
        ramp.look()
        widths.append(ramp.width)
    return widths


def test_short_steps_are_run_one_at_a_time() -> None:
    assert widths_of(Ramp(16), [20, 16, 8, 9]) == [1, 1, 1, 1]


def test_steps_that_take_longer_get_company_up_to_the_limit() -> None:
    assert widths_of(Ramp(6), [0, 1, 0, 3]) == [2, 4, 6, 6]


def test_what_counts_is_how_long_a_step_takes_not_how_many_end() -> None:
    assert widths_of(Ramp(16), [3, 7, 15, 16]) == [2, 4, 8, 16]
    assert widths_of(Ramp(16), [3, 7, 32, 40]) == [2, 4, 4, 4]


@pytest.mark.parametrize("limit", [1, 4])
def test_a_run_may_begin_at_its_limit(limit: int) -> None:
    assert Ramp(limit, first=limit).is_at_limit
    assert Ramp(limit).is_at_limit is (limit == 1)
