"""The expected edit distance in closed form: the recursion, and kernels for it."""
