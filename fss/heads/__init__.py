"""Few-shot methods, each in three functions: `encode_support`, `encode_query`, `decode`; and the base learner."""

from fss.heads.bam import BAM
from fss.heads.baseline import Baseline
from fss.heads.head import IGNORE, Features, Head, Prediction
from fss.heads.pfenet import PFENet
from fss.heads.prior import PriorMask
from fss.heads.pspnet import PSPHead

__all__ = ["BAM", "IGNORE", "Baseline", "Features", "Head", "PFENet", "PSPHead", "Prediction", "PriorMask"]
