"""Singular value fine-tuning (SVF) of any torch network. Depends on torch alone.

decompose(network, only=["layer2", "layer3"])   # in place; train the S of each layer
singular_values(network)                        # how far each layer has moved
merge(network)                                  # back to plain layers, with no trace of SVF
"""

from fss.svf.decompose import SingularValues, decompose, merge, plain_state_dict, singular_values
from fss.svf.fused import qkv_parts, split_svd
from fss.svf.layers import SVD, SVFConv2d, SVFLinear, compose, exact_svd

__all__ = [
    "SVD",
    "SVFConv2d",
    "SVFLinear",
    "SingularValues",
    "compose",
    "decompose",
    "exact_svd",
    "merge",
    "plain_state_dict",
    "qkv_parts",
    "singular_values",
    "split_svd",
]
