"""Singular value fine-tuning (SVF) of any torch network, and what it is compared with. Depends on torch alone.

decompose(network, only=["layer2", "layer3"])   # in place; train the S of each layer
singular_values(network)                        # how far each layer has moved
merge(network)                                  # back to plain layers, with no trace of SVF
"""

from fss.svf.beside import put_beside
from fss.svf.bottleneck import Bottleneck, bottlenecks_of, put_bottlenecks
from fss.svf.decompose import SingularValues, decompose, singular_values
from fss.svf.fused import qkv_parts, split_svd
from fss.svf.layers import SVD, SVFConv2d, SVFLinear, compose, exact_svd
from fss.svf.lora import LoRA
from fss.svf.plain import merge, plain_state_dict
from fss.svf.values import with_values

__all__ = [
    "SVD",
    "Bottleneck",
    "LoRA",
    "SVFConv2d",
    "SVFLinear",
    "SingularValues",
    "bottlenecks_of",
    "compose",
    "decompose",
    "exact_svd",
    "merge",
    "plain_state_dict",
    "put_beside",
    "put_bottlenecks",
    "qkv_parts",
    "singular_values",
    "split_svd",
    "with_values",
]
