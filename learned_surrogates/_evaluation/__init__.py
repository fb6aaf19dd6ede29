"""When and where the metric is evaluated: in the call, by workers, on part of a batch."""
