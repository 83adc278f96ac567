"""Damage by chance: to bytes, to lines, and to the values of JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

# What exporters, editors and strangers put where a number, a name or a list belongs.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 256, 65535, 2**31, 2**32, 2**63, 10**9, 10**30, -(10**9)),
    *(0.5, 60.0, 1e9, -1e9, 1e300, math.nan, math.inf, -math.inf),
    *(
        "",
        "60",
        "nan",
        " ",
        "..",
        "/",
        "../../outside",
        "/etc/hostname",
        "a\0b",
        "[/red]",
        "$\\frac{$",
        "\x1b[31m",
    ),
    *(
        "é" * 300,
        "javascript:alert(1)",
        "${oc.env:HOME}",
        [],
        {},
        [[]],
        [None],
        [[0, 0]],
        {"a": 1},
        [1, 2, 3],
        [[1, 2, 3]],
    ),
    *(
        [math.nan] * 6,
        [[math.inf] * 8],
        [1e9] * 6,
        {"size": [3, 3], "counts": []},
        {"size": [0, 0], "counts": "x"},
    ),
)
ODD_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xe9",
    b"\x1b[31m",
    b"\r\n",
    b"/../",
    b"99999999999",
    b"-1",
)


def damaged_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, cut off, cut out, doubled, put in, or zeroed, as transfers and full disks do."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        n = len(data)
        at, length = int(rng.integers(n + 1)), int(min(n, 1 + rng.exponential(8)))
        match int(rng.integers(7)):
            case 0 if n:
                data[at % n] ^= 1 << int(rng.integers(8))
            case 1 if n:
                data[at % n] = int(rng.integers(256))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at:at] = ODD_BYTES[int(rng.integers(len(ODD_BYTES)))]
            case _:
                data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


def damaged_lines(content: bytes, rng: np.random.Generator) -> bytes:
    """Lines lost, doubled, swapped, with odd bytes, or in another encoding; one in four is `damaged_bytes`."""
    if rng.random() < 0.25:
        return damaged_bytes(content, rng)
    lines = content.split(b"\n")
    at, other = (int(i) for i in rng.integers(len(lines), size=2))
    match int(rng.integers(7)):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] += ODD_BYTES[int(rng.integers(len(ODD_BYTES)))]
        case 4:
            lines[at] = str(ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]).encode()
        case 5:
            text = content.decode("utf-8", "replace") + "é"
            return text.encode(("utf-16", "cp1252", "utf-8-sig", "utf-32")[int(rng.integers(4))], "replace")
        case _:
            lines[at] *= 1000
    return b"\n".join(lines)


def damaged_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Values replaced by odd ones, entries lost or doubled, keys renamed; one in eight is `damaged_bytes`."""
    if rng.random() < 0.125:
        return damaged_bytes(content, rng)
    value = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(value))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 1:
                holder[f"{key}_"] = holder.pop(key)
            case 2:
                other, there = places[int(rng.integers(len(places)))]
                holder[key] = json.loads(json.dumps(other[there]))
            case 3 if isinstance(holder[key], int | float | str):
                holder[key] = str(holder[key]) if rng.random() < 0.5 else _moved(holder[key], rng)
            case _:
                holder[key] = json.loads(json.dumps(ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]))
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """(holder, key) of every value below."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _moved(value: Any, rng: np.random.Generator) -> Any:
    """A number or text near the given one."""
    if isinstance(value, str):
        at = int(rng.integers(len(value) + 1))
        return value[:at] + chr(int(rng.integers(1, 0x250))) + value[at + int(rng.integers(2)) :]
    return value + (1, -1, 0.5, 1000, -1000)[int(rng.integers(5))]
