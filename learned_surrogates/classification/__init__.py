"""Classification: any metric of a batch, and contrastive losses that train a classifier."""

from ._contrastive import SupCon as SupCon
from ._esupcon import ESupCon as ESupCon
from ._set_task import Sets as Sets
from ._spce import SPCE as SPCE
from ._tightness import Tightness as Tightness
