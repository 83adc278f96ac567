"""Few-shot methods, each as three functions (`encode_support`, `encode_query`, `decode`), and the base learner."""

from fss.models.heads.bam import BAM
from fss.models.heads.baseline import Baseline
from fss.models.heads.cross_attention import CrossAttention
from fss.models.heads.head import Features, Head, Prediction
from fss.models.heads.match import Match
from fss.models.heads.pfenet import PFENet
from fss.models.heads.prior import PriorMask
from fss.models.heads.pspnet import PSPHead

__all__ = [
    "BAM",
    "Baseline",
    "CrossAttention",
    "Features",
    "Head",
    "Match",
    "PFENet",
    "PSPHead",
    "Prediction",
    "PriorMask",
]
