"""Warnings that point at the user's own line."""

import sys
import warnings

# What stands between that line and a warning of ours.
BETWEEN = ("learned_surrogates", "torch")


def warn(message: str) -> None:
    """Warns, as if the first caller outside of this package and PyTorch did."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
