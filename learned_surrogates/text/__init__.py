"""Text recognition: its tasks, its metrics, its random data generator."""

from ._char_cnn import CharCNN as CharCNN
from ._ctc import CTC as CTC
from ._edit_distance import (
    edit_distance as edit_distance,
    normalized_edit_distance as normalized_edit_distance,
    normalized_word_edit_distance as normalized_word_edit_distance,
    word_edit_distance as word_edit_distance,
)
from ._expected_edit_distance import ExpectedEditDistance as ExpectedEditDistance
from ._generator import RandomEdits as RandomEdits
from ._per_position import PerPosition as PerPosition
from ._published import feds as feds, ls_ed as ls_ed
from ._variational_ctc import VariationalCTC as VariationalCTC
from ._weighted_edit_distance import WeightedEditDistance as WeightedEditDistance
