"""What both ways of learning share: `Fit`, `Replay`, random weights, processes, figures."""
