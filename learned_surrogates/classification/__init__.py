"""Classification: contrastive losses that train a classifier with the representation."""

from ._contrastive import SupCon as SupCon
from ._esupcon import ESupCon as ESupCon
from ._spce import SPCE as SPCE
from ._tightness import Tightness as Tightness
