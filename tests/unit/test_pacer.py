"""The fixed budget: few rows where rows are dear."""

from __future__ import annotations

import pytest

from paceline.pacer import affordable_budget


@pytest.mark.parametrize(
    ("costs", "budget"),
    [
        ({1: 10.0, 2: 10.1, 4: 11.0, 8: 12.0, 16: 30.0}, 7),
        ({1: 10.0, 2: 10.1, 4: 11.0, 8: 12.0, 16: 13.0}, 7),
        ({1: 10.0, 2: 13.0, 4: 15.9, 8: 17.0}, 3),
        ({1: 3.7, 2: 7.8, 4: 14.5, 8: 34.5}, 1),
        ({4: 9.0, 8: 20.0}, 3),
        ({16: 5.0}, 7),
    ],
)
def test_the_budget_is_what_costs_little_more_than_one_row(costs: dict[int, float], budget: int) -> None:
    assert affordable_budget(costs) == budget
