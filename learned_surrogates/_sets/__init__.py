"""Metrics of a set, in which the set is the sample: what lists, labels and masks have in common."""
