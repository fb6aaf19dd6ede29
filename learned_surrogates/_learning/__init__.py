"""How it is learned: `Fit`, `Replay`, random weights, processes, figures.

`FitValues` and `Filter` are for surrogates that are fitted to values, the rest for all.
"""
