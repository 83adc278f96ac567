"""Checkpoints, ours and the published programs', read into a segmenter.

A published PFENet file holds `{"state_dict": {...}}`; its backbone parts are `layer0` to `layer4`, all
other names belong to the head. Ours carry the same names behind `backbone.` and `head.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fss.backbones.weights import load_strictly, read_state_dict
from fss.segmenter import FewShotSegmenter
from fss.svf import plain_state_dict

_OURS = "segmenter."  # where a training checkpoint keeps the model


def load_checkpoint(segmenter: FewShotSegmenter, file: str | Path) -> None:
    """Loads a checkpoint of this program (SVF layers merged) or of a published one.

    Args:
        segmenter: Of the checkpoint's method and backbone, not decomposed.
        file: The checkpoint.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no checkpoint, or entries do not fit; they are listed.
    """
    state = read_state_dict(file)
    if any(name.startswith(_OURS) for name in state):
        ours = {name.removeprefix(_OURS): value for name, value in state.items()}
        load_strictly(segmenter, plain_state_dict(ours), str(file))
    else:
        load_published(segmenter, state, source=str(file))


def load_published(
    segmenter: FewShotSegmenter, state: Mapping[str, Tensor], source: str = "the state dict"
) -> None:
    """Loads a published checkpoint's state dict into a segmenter of the same method and backbone.

    Args:
        segmenter: Not yet decomposed, or decomposed: plain weights are then decomposed on the way in.
        state: Names with or without `module.`.
        source: What to call it in messages.

    Raises:
        ValueError: Entries do not fit; they are listed.
    """
    names = {name: name.removeprefix("module.") for name in state}
    ours = {
        f"{'backbone' if name.startswith('layer') else 'head'}.{name}": state[key] for key, name in names.items()
    }
    load_strictly(segmenter, ours, source)
