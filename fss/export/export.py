"""A model file as graphs for other runtimes, compared with the model before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from fss.export.agreement import LARGEST, Agreement, agreement
from fss.export.files import Precision, read_graphs, write_graphs
from fss.export.graphs import accepts_any_shot, export_graphs
from fss.export.onnx_graphs import OnnxGraph, quantized, to_onnx
from fss.export.runtime import graph_segmenter
from fss.export.torch_graphs import TorchGraph, to_programs
from fss.models.card import ModelCard
from fss.models.model_file import read_model
from fss.models.segmenter import FewShotSegmenter
from fss.svf import merge

Format = Literal["onnx", "torch"]


class Exported(NamedTuple):
    """What came of an export.

    Attributes:
        agreement: With the model, on pictures of noise.
        megabytes: Size of both graphs, in 10^6 bytes.
        shot: The number of supports that it takes; None for any.
    """

    agreement: Agreement
    megabytes: float
    shot: int | None


def export_model(model: Path, out: Path, form: Format, precision: Precision = "float32") -> Exported:
    """Exports a model file.

    Args:
        model: The model file.
        out: The graph that answers queries; the other one and the description are written beside it.
        form: "onnx" or "torch" (torch.export).
        precision: "int8" has ONNX's weights as 8-bit integers.

    Raises:
        FileNotFoundError: There is no such model file.
        OSError: A file cannot be written.
        RuntimeError: The graphs do not answer as the model does; nothing is written then.
        ValueError: The model file cannot be used, or torch.export was asked for integers.
    """
    if form == "torch" and precision != "float32":
        raise ValueError("int8=true: only format=onnx has it")
    segmenter, card = read_model(model)
    merge(segmenter)
    any_shot = form == "onnx" and accepts_any_shot(segmenter, card.shot)
    graphs = export_graphs(segmenter, card.size, card.shot, any_shot)
    shot = None if any_shot else card.shot
    if form == "onnx":
        query, support = to_onnx(graphs)
        if precision == "int8":
            query, support = quantized(query), quantized(support)
        exported = graph_segmenter(OnnxGraph(query), OnnxGraph(support))
    else:
        query, support = to_programs(graphs)
        names = graphs.names
        exported = graph_segmenter(TorchGraph(query, names, False, shot), TorchGraph(support, names, True, shot))
    found = agreement(segmenter, exported, card.size, card.shot, any_shot)
    if precision == "float32" and not found.relative <= LARGEST:
        raise RuntimeError(
            f"the exported {card.head.name} answers otherwise than the model: logits differ by up to "
            f"{found.difference:.2g}, {found.relative:.2g} of the largest. Nothing is written; other versions of "
            "torch or onnxruntime may do better"
        )
    write_graphs(out, query, support, card, precision)
    return Exported(found, (len(query) + len(support)) / 1e6, shot)


def read_onnx(file: Path) -> tuple[FewShotSegmenter, ModelCard]:
    """An exported ONNX model as a segmenter, for novel classes, on the CPU.

    Raises:
        FileNotFoundError: One of its files is missing.
        ValueError: They do not belong together, are damaged or no exported model.
    """
    query, support, card = read_graphs(file)
    try:
        return graph_segmenter(OnnxGraph(query), OnnxGraph(support)), card
    except ValueError as error:
        raise ValueError(f"{file} cannot be used: {error}") from error
