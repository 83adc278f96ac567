"""Models as programs of torch.export."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import torch
from torch import Tensor

from fss.export.graphs import QUERY_OUTPUTS, SUPPORT_INPUTS, Graphs


def to_programs(graphs: Graphs) -> tuple[bytes, bytes]:
    """Both graphs as files for `torch.export.load`, query and support."""
    files = []
    for program in (graphs.query, graphs.support):
        file = io.BytesIO()
        torch.export.save(program, file)
        files.append(file.getvalue())
    return files[0], files[1]


class TorchGraph:
    """A program that can be run, see `fss.export.runtime.Graph`.

    `torch.export.load` is made for files of one's own: this is only for those that have just been written.

    Args:
        file: Its content.
        names: Names of the tensors of encoded supports.
        is_support: Whether it encodes supports.
        shot: The number of supports that it takes; None for any.
    """

    def __init__(self, file: bytes, names: tuple[str, ...], is_support: bool, shot: int | None) -> None:
        self._module = torch.export.load(io.BytesIO(file)).module()
        self._is_support, self.shot = is_support, shot
        self.inputs = SUPPORT_INPUTS if is_support else ("images", *names)
        self.outputs = names if is_support else QUERY_OUTPUTS
        self.digest = hashlib.sha256(file).hexdigest()

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps inputs to outputs, both by name."""
        first, *others = (given[name] for name in self.inputs)
        found = self._module(first, *others) if self._is_support else self._module(first, tuple(others))
        return dict(zip(self.outputs, found, strict=True))
