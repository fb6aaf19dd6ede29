"""The study of text, and the tables that are made from it."""

from argparse import Namespace

import pytest

from benchmarks import when_it_helps, when_it_helps_page
from lib.runs import append, at_best_rate, read


def row(method: str, seed: int, error: float, rate: float = 1e-3, **other) -> dict:
    splits = {"validation": error, "familiar": error, "test": 2 * error, "accuracy": 0.5}
    key = {"regime": "noisy", "head": "ctc", "steps": 600, "method": method}
    return key | {"rate": rate, "seed": seed} | splits | other


def test_the_page_has_the_tables_of_the_committed_runs():
    page = when_it_helps_page.PAGE.read_text()
    assert when_it_helps_page.filled(page, read(when_it_helps_page.RESULTS)) == page


def test_a_method_has_its_own_rate_and_is_compared_on_seeds_that_both_have():
    rows = [row("proxy", 0, 0.5, 1e-4), row("proxy", 0, 0.4), row("proxy", 1, 0.6)]
    rows += [row("surrogate", 0, 0.3), row("surrogate", 1, 0.6), row("surrogate", 2, 0.6)]
    proxy, loss = when_it_helps_page.table(rows)[2:]
    assert proxy.startswith("| 600 | proxy | 0.001 | 2 | 0.5000 ± 0.1414 | | 1.0000 ± 0.2828 |")
    assert " 0.5000 ± 0.1732 | -10.0 % (1 of 2) |" in loss


def test_a_bias_has_columns_where_it_was_tried():
    biased = row("proxy", 0, 0.5, **{"with bias": {"familiar": 0.25, "test": 0.75}})
    head, _, line = when_it_helps_page.table([biased])
    assert head.count("with a bias") == 2
    assert " 0.5000 | | 0.2500 | 1.0000 | | 0.7500 | 50.0 % |" in line


def test_a_rate_is_chosen_by_the_first_seed():
    rows = [row("proxy", 0, 0.5, 1e-4), row("proxy", 0, 0.4), row("proxy", 1, 0.1, 1e-4)]
    assert at_best_rate(rows) == [rows[1]]


def test_runs_that_the_results_have_are_not_made_again(tmp_path, monkeypatch):
    results, made = tmp_path / "runs.json", []

    class Study(when_it_helps.Study):
        def __init__(self, options):
            self.options, self.regime, self.head = options, "noisy", "ctc"

        def tuned(self, method, rate, seed):
            made.append((method, rate, seed))
            return {"validation": 1 - rate, "familiar": 1.0, "test": 1.0, "accuracy": 0.0}

    options = Namespace(results=results, methods=["proxy"], rates=[0.1, 0.2], seeds=2, steps=600)
    Study(options).run()
    first = [("checkpoint", 0.0, 0), ("proxy", 0.1, 0), ("proxy", 0.2, 0), ("proxy", 0.2, 1)]
    assert made == first
    options.seeds = 3
    Study(options).run()
    assert made == [*first, ("proxy", 0.2, 2)]
    assert len(read(results)) == 5


def test_a_page_without_its_markers_is_not_written_to(tmp_path):
    append(tmp_path / "runs.json", row("proxy", 0, 0.5))
    with pytest.raises(ValueError, match="lacks"):
        when_it_helps_page.filled("# A page", read(tmp_path / "runs.json"))
