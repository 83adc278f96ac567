"""Few-shot methods, each in three functions: `encode_support`, `encode_query`, `decode`."""

from fss.heads.head import IGNORE, Features, Head, Prediction
from fss.heads.pfenet import PFENet
from fss.heads.prior import PriorMask

__all__ = ["IGNORE", "Features", "Head", "PFENet", "Prediction", "PriorMask"]
