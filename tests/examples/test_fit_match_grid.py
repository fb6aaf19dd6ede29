"""The script that fits the nets which the package ships."""

from argparse import Namespace

import fit_match_grid
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from simulated_recognisers import simulate

from learned_surrogates.text._match_grid import MatchGridNet


@pytest.mark.parametrize("head", ["ctc", "characters"])
def test_what_is_saved_is_the_net_that_was_fitted(head, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_match_grid, "HELD_OUT", (1, 8, 2))
    options = Namespace(head=head, width=4, layers=2, steps=40, rate=0.03, seed=0)
    net, file = fit_match_grid.fit(options), tmp_path / "weights" / "net.safetensors"
    fit_match_grid.save(net, file)
    saved = MatchGridNet(4, 2)
    before = [parameter.clone() for parameter in saved.parameters()]
    saved.load_state_dict(saved.state_dict() | load_file(file))
    assert not all(map(torch.equal, before, saved.parameters()))
    outputs = simulate(head, 16, np.random.default_rng(1))
    grid, _ = fit_match_grid.grid_and_expectation(outputs, 1, torch.Generator())
    # Targets of any class: what a fit has learned about one must not be lost.
    labels = torch.zeros(16, grid.shape[3] - 1)
    torch.testing.assert_close(saved(grid, labels), net(grid, labels), rtol=0, atol=0)
