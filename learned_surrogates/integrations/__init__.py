"""Loops that need more than a loss to call: a module each, which imports that library."""
