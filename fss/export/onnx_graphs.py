"""Models as ONNX, and ONNX through ONNX Runtime."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor
from torch.export import ExportedProgram

from fss.export.graphs import QUERY_OUTPUTS, SUPPORT_INPUTS, Graphs


def to_onnx(graphs: Graphs) -> tuple[bytes, bytes]:
    """Both graphs as ONNX files, query and support."""
    query = _translated(graphs.query, ("images", *graphs.names), QUERY_OUTPUTS)
    return query, _translated(graphs.support, SUPPORT_INPUTS, graphs.names)


def quantized(file: bytes) -> bytes:
    """An ONNX file with the weights of its layers as 8-bit integers; activations are scaled as they come."""
    with tempfile.TemporaryDirectory() as folder:  # its interface knows only files
        plain, small = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        plain.write_bytes(file)
        quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8)
        return small.read_bytes()


class OnnxGraph:
    """An ONNX file that can be run, see `fss.export.runtime.Graph`; on the CPU, in float32.

    Args:
        file: Its content, weights inside.

    Raises:
        ValueError: It is no ONNX file, has weights in other files, or ONNX Runtime cannot run it.
    """

    def __init__(self, file: bytes) -> None:
        _check_closed(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a type of its own for each kind
            raise ValueError(f"ONNX Runtime cannot load it: {error}") from error
        found = self._session.get_inputs()
        self.inputs = tuple(one.name for one in found)
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        shape = found[0].shape  # (B, K, 3, S, S) of a graph for supports
        self.shot = shape[1] if len(shape) == 5 and isinstance(shape[1], int) else None
        self.digest = hashlib.sha256(file).hexdigest()

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps inputs to outputs, both by name."""
        device = next(iter(given.values())).device
        arrays = {name: np.ascontiguousarray(given[name].float().cpu().numpy()) for name in self.inputs}
        found = self._session.run(self.outputs, arrays)
        return {name: torch.from_numpy(value).to(device) for name, value in zip(self.outputs, found, strict=True)}


def _translated(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    names = {"input_names": list(inputs), "output_names": list(outputs)}
    made = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    assert made is not None
    model = made.model_proto
    _name_dimensions(model.graph, is_support=tuple(inputs) == SUPPORT_INPUTS)
    return model.SerializeToString()


def _name_dimensions(graph: onnx.GraphProto, is_support: bool) -> None:
    """Gives what is free a name that says what it is, in place of one that a tracer has made up."""
    first, last = graph.input[0], graph.input[-1]
    known = {first.type.tensor_type.shape.dim[0].dim_param: "batch"}
    shots = (first if is_support else last).type.tensor_type.shape.dim[1].dim_param
    known |= {shots: "shots"} if shots else {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in known:
                dimension.dim_param = known[dimension.dim_param]


def _check_closed(file: bytes) -> None:
    """Raises ValueError for what is no graph, or has weights in another file, which could be any."""
    try:
        model = onnx.load_from_string(file)
    except Exception as error:  # protobuf's own types
        raise ValueError(f"it is no ONNX file ({error})") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ValueError("its weights are in other files: export it anew, which writes them inside")
