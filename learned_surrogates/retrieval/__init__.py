"""Retrieval: recall@k as a loss of embeddings, batches of any size, and the metric itself."""

from ._large_batch import large_batch as large_batch
from ._recall import recall_at_k as recall_at_k
from ._recall_loss import RecallAtK as RecallAtK
