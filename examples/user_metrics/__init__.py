"""Metrics that users have, as problems small enough to train on in seconds.

`problem.py` says what a problem is made of; the other files have them by kind of output. Data is
drawn from seeded generators, or comes with scikit-learn where the sentence says "real data".
`score_function.py` and `methods.py` are what the study trains on, `training.py` how, `results.py`
where it is written down, `summary.py` and `picture.py` what it comes to. The study itself is
`benchmarks/any_metric.py`.
"""

from . import classes, geometry, labels, lists, masks, quantities, solvers

PROBLEMS = {
    problem.name: problem
    for module in (labels, classes, quantities, geometry, lists, masks, solvers)
    for problem in module.PROBLEMS
}
