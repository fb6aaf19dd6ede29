"""A surrogate fitted to the metric's values, and followed (LS, FEDS): boxes, or by request."""
