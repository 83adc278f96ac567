"""The files of an exported model, and the description that stands beside them.

NAME.onnx answers queries, NAME-support.onnx encodes supports, NAME.onnx.json says how to use both. Programs of
torch.export are named likewise, with `.pt2`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fss.display.shown import shown
from fss.files.plain import read_json, write_json
from fss.files.whole import whole
from fss.models.card import ModelCard

VERSION = 1
Precision = Literal["float32", "int8"]
_ENTRIES = {"version", "precision", "query", "support", "card", "card_sha256", "use"}


def support_file(file: Path) -> Path:
    """The graph that encodes supports, beside the one that answers queries."""
    return file.with_name(f"{file.stem}-support{file.suffix}")


def description_file(file: Path) -> Path:
    """The description of an exported model."""
    return file.with_name(f"{file.name}.json")


def write_graphs(file: Path, query: bytes, support: bytes, card: ModelCard, precision: Precision) -> None:
    """Writes both graphs, and their description last.

    Raises:
        OSError: A file cannot be written.
    """
    for path, content in ((support_file(file), support), (file, query)):
        with whole(path) as unfinished:
            unfinished.write_bytes(content)
    text = card.to_json()
    told = {
        "version": VERSION,
        "precision": precision,
        "query": hashlib.sha256(query).hexdigest(),
        "support": hashlib.sha256(support).hexdigest(),
        "card": text,
        "card_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "use": _use(file, card),
    }
    write_json(description_file(file), told)


def read_graphs(file: Path) -> tuple[bytes, bytes, ModelCard]:
    """Both graphs of an exported model, query and support, and its card.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: They do not belong together, or one is damaged.
    """
    told, card = _read_description(file)
    contents = {}
    for part, path in (("query", file), ("support", support_file(file))):
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: an exported model has two graphs and a description, take all three"
            )
        contents[part] = path.read_bytes()
        if hashlib.sha256(contents[part]).hexdigest() != told[part]:
            raise ValueError(
                f"{path} is not the file that {description_file(file)} describes: export the model anew"
            )
    return contents["query"], contents["support"], card


def read_graphs_card(file: Path) -> ModelCard:
    """The card of an exported model; raises as `read_graphs` does."""
    return _read_description(file)[1]


def _read_description(file: Path) -> tuple[dict[str, Any], ModelCard]:
    path = description_file(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: it says what {file.name} is; export the model anew, or bring it along"
        )
    told = read_json(path)
    try:
        if not isinstance(told, dict) or told.keys() != _ENTRIES or told["version"] != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        text = told["card"]
        if not isinstance(text, str) or hashlib.sha256(text.encode()).hexdigest() != told["card_sha256"]:
            raise ValueError("its card is damaged (another checksum)")
        return told, ModelCard.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} does not describe an exported model: {shown(error)}. Export it anew") from error


def _use(file: Path, card: ModelCard) -> Mapping[str, Any]:
    """For people who have nothing but the files."""
    lies = {
        "published": "its longer side becomes `size`, both sides are floored to a multiple of 8",
        "exact": "its longer side becomes `size`, the other one keeps its proportion (9/16 of it at least)",
    }
    back = {
        "published": "resize the logits to the square of its longer side (aligned corners), and cut it top left",
        "exact": "cut what the picture covers, resize it to the picture (corners not aligned)",
    }
    return {
        "size": card.size,
        "picture": f"RGB, float32 in 0..255, channels first; resized bilinearly so that {lies[card.geometry]}; "
        "top left in a square of zeros of `size`. Normalisation is inside the graphs",
        "supports": f"{support_file(file).name}, once: images (B, K, 3, size, size), masks (B, K, size, size) "
        "float, 1 object and 0 not; each of its outputs is an input of the same name of the other graph",
        "queries": f"{file.name}: images (B, 3, size, size) and the encoded supports; logits (B, 2, size, size)",
        "answer": f"{back[card.geometry]}; foreground where softmax(logits)[1] > threshold",
        "threshold": card.threshold,
    }
