"""Of which metrics the expected value is known in closed form."""

from rapidfuzz.distance import Levenshtein

from .._metric.metric import Metric
from ._edit_distance import edit_distance
from ._expected_edit_distance import ExpectedEditDistance
from ._text_task import TextTask
from ._weighted_edit_distance import WeightedEditDistance

# Cost of an insertion and a deletion up to which the closed form is a matter of milliseconds.
MOST_COSTS = 12


def known_distance(task: TextTask, metric: Metric) -> ExpectedEditDistance | None:
    """The closed form of a metric's expected value; None if it is not known to have one.

    Args:
        task: the task.
        metric: the user's.
    """
    # Where several characters are taken for one, or one class has several, they count otherwise.
    alphabet = task.alphabet
    spelt = alphabet.decoder is None and all(len(token) == 1 for token in alphabet.characters)
    as_it_is = not metric.higher_is_better and metric.best == 0
    if task.folded is not None or not spelt or not as_it_is:
        return None
    function = metric.function
    if function is edit_distance or function is Levenshtein.distance:
        return ExpectedEditDistance(task)
    # Not of a class of the user's, which may count otherwise.
    if type(function) is WeightedEditDistance and function.whole is not None:
        additional, missing, wrong = function.whole
        if additional + missing <= MOST_COSTS:
            return ExpectedEditDistance(
                task, insertion=additional, deletion=missing, substitution=wrong
            )
    return None
