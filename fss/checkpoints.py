"""Checkpoints of the published programs, read into our modules.

A published PFENet file holds `{"state_dict": {...}}`; its backbone parts are `layer0` to `layer4`, all
other names belong to the head. Ours carry the same names behind `backbone.` and `head.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fss.backbones.weights import load_strictly, read_state_dict
from fss.segmenter import FewShotSegmenter


def load_published(segmenter: FewShotSegmenter, checkpoint: str | Path | Mapping[str, Tensor]) -> None:
    """Loads a published checkpoint into a segmenter of the same method and backbone.

    Args:
        segmenter: Not yet decomposed, or decomposed: plain weights are then decomposed on the way in.
        checkpoint: A file, or its state dict (names with or without `module.`).

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no checkpoint, or entries do not fit; they are listed.
    """
    if isinstance(checkpoint, Mapping):
        source, state = "the state dict", {k.removeprefix("module."): v for k, v in checkpoint.items()}
    else:
        source, state = str(checkpoint), read_state_dict(checkpoint)
    ours = {f"{'backbone' if name.startswith('layer') else 'head'}.{name}": value for name, value in state.items()}
    load_strictly(segmenter, ours, source)
