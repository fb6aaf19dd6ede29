"""How the figures went: rows that are thinned out, by numbers worked out by hand."""

import pytest

from learned_surrogates._learning.history import History


@pytest.fixture(autouse=True)
def at_most_four_rows(monkeypatch):
    monkeypatch.setattr("learned_surrogates._learning.history.MOST_ROWS", 4)


def added(history, numbers):
    for number in numbers:
        history.add({"calls": number, "square": number**2, "other": -1})
    return history


@pytest.mark.parametrize(
    ("count", "calls"),
    [
        (4, [1, 2, 3, 4]),
        (5, [1, 3, 5]),
        (6, [1, 3, 5]),
        (7, [1, 3, 5, 7]),
        (9, [1, 5, 9]),
        (16, [1, 5, 9, 13]),
        (17, [1, 9, 17]),
        (32, [1, 9, 17, 25]),
    ],
)
def test_every_second_row_is_dropped_when_there_are_too_many(count, calls):
    history = added(History(("calls", "square")), range(1, count + 1))
    assert history.columns() == {"calls": calls, "square": [number**2 for number in calls]}


@pytest.mark.parametrize("cut", range(18))
def test_one_that_is_loaded_goes_on_where_it_was(cut):
    restored = History(("calls", "square"))
    restored.load(added(History(("calls", "square")), range(1, cut + 1)).save())
    assert added(restored, range(cut + 1, 18)).columns()["calls"] == [1, 9, 17]
