"""Data, models, training and reports that the examples, studies and benchmarks share."""
