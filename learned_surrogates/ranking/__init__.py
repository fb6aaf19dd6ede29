"""Any metric of lists, ranks with a gradient, and losses in closed form where there is one."""

from ._average_precision import average_precision_loss as average_precision_loss
from ._blackbox import blackbox_rank as blackbox_rank
from ._list_task import Lists as Lists
from ._metrics import average_precision as average_precision, spearman as spearman
from ._ndcg import ndcg_loss as ndcg_loss
from ._ranks import (
    expected_ranks as expected_ranks,
    ranks as ranks,
    sigmoid_ranks as sigmoid_ranks,
)
from ._recall import recall_loss as recall_loss
from ._sodeep import (
    rank_margin_loss as rank_margin_loss,
    rank_sum_loss as rank_sum_loss,
    squared_rank_loss as squared_rank_loss,
)
from ._sorters import ConvSorter as ConvSorter, LSTMSorter as LSTMSorter
from ._spearman import spearman_loss as spearman_loss
