"""Reads one label map from a MATLAB file (level 5), as SBD stores its masks.

SciPy's reader ends the process on some damaged files. This one knows only what SBD needs, and never reads beyond
what is there.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np

_MATRIX, _COMPRESSED = 14, 15
_STRUCT = 2  # class of a matrix
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_HEADER = 128
_LARGEST = 10**8  # bytes of a variable


class _Element(NamedTuple):
    kind: int
    content: bytes


class _Matrix(NamedTuple):
    kind: int
    shape: tuple[int, ...]
    name: str
    rest: list[_Element]


def struct_field(content: bytes, variable: str, field: str) -> np.ndarray:
    """Returns a numeric field (h, w) of a variable that is a struct.

    Args:
        content: Of the file.
        variable: Name of the variable.
        field: Name of the field.

    Raises:
        ValueError: If the file is damaged or holds no such thing.
    """
    if len(content) < _HEADER or content[124:128] != b"\x00\x01IM":
        raise ValueError("no MATLAB file of level 5, little-endian")
    try:
        for element in _elements(content[_HEADER:]):
            matrix = _matrix(element)
            if matrix.name == variable:
                return _numbers(_field(matrix, field))
    except (struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"damaged ({error})") from error
    raise ValueError(f"no variable {variable}")


def _elements(data: bytes) -> list[_Element]:
    """Splits data into its elements. Each begins with kind and size: four bytes if it is short, else eight."""
    elements, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if size > 4:
                raise ValueError("a short element of more than 4 bytes")
        else:
            # only compressed elements are not padded to a multiple of eight bytes
            begin, step = at + 8, 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if begin + size > len(data):
            raise ValueError("an element ends beyond the file")
        elements.append(_Element(kind, data[begin : begin + size]))
        at += step
    return elements


def _matrix(element: _Element) -> _Matrix:
    if element.kind == _COMPRESSED:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(element.content, _LARGEST)
        if not unpacker.eof:
            raise ValueError("a compressed variable is truncated or too large")
        [element] = _elements(data)[:1] or [_Element(0, b"")]
    if element.kind != _MATRIX:
        raise ValueError("an element that is no variable")
    flags, shape, name, *rest = _elements(element.content)
    dimensions = tuple(struct.unpack(f"<{len(shape.content) // 4}i", shape.content))
    return _Matrix(struct.unpack_from("<I", flags.content)[0] & 0xFF, dimensions, name.content.decode(), rest)


def _field(matrix: _Matrix, field: str) -> _Matrix:
    if matrix.kind != _STRUCT or matrix.shape != (1, 1):
        raise ValueError(f"{matrix.name} is no struct of one element")
    [length] = struct.unpack("<i", matrix.rest[0].content)
    names = matrix.rest[1].content
    if length < 1:
        raise ValueError("field names without length")
    listed = [names[i : i + length].rstrip(b"\0").decode() for i in range(0, len(names), length)]
    if field not in listed:
        raise ValueError(f"{matrix.name} has no field {field}")
    return _matrix(matrix.rest[2 + listed.index(field)])


def _numbers(matrix: _Matrix) -> np.ndarray:
    values = matrix.rest[0]
    if len(matrix.shape) != 2 or min(matrix.shape) < 1 or values.kind not in _NUMBERS:
        raise ValueError("a field that is no matrix of numbers")
    numbers = np.frombuffer(values.content, np.dtype(_NUMBERS[values.kind]).newbyteorder("<"))
    if len(numbers) != matrix.shape[0] * matrix.shape[1]:
        raise ValueError(f"{len(numbers)} numbers for {matrix.shape[0]} x {matrix.shape[1]}")
    return numbers.reshape(matrix.shape, order="F")
