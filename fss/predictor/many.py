"""Segments many pictures into a folder: masks, overlays, COCO's format, a contact sheet; goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fss.files import lock
from fss.files.plain import as_json
from fss.files.text import printable
from fss.files.whole import UnusableNameError, check_target, whole
from fss.models.fingerprint import fingerprint
from fss.predictor.predictor import FewShotPredictor
from fss.predictor.queries import Query, QueryReader
from fss.predictor.segmentation import Segmentation, categories
from fss.visualize import picture_sheet

logger = logging.getLogger(__name__)

MASKS, OVERLAYS, PREDICTIONS, SHEET = "masks", "overlays", "predictions.json", "sheet.png"
JOURNAL = ".unfinished.jsonl"
ON_SHEET = 24  # pictures


class Done(NamedTuple):
    """What `segment_all` did.

    Attributes:
        answered: Number of pictures with an answer, those of an earlier, stopped start included.
        earlier: How many of them were answered then.
        skipped: For each picture that could not be used, why.
    """

    answered: int
    earlier: int
    skipped: dict[str, str]


def segment_all(
    predictor: FewShotPredictor,
    queries: Sequence[Query],
    out: Path,
    abstain: bool = True,
    batch_size: int = 1,
    tile: int | None = None,
    shown: Callable[[Iterable[Query], int], Iterable[Query]] = lambda queries, total: queries,
) -> Done:
    """Segments pictures and writes `masks/NAME.png`, `overlays/NAME.jpg`, `predictions.json` and `sheet.png`.

    Where no picture could be used, nothing is written, and what was there stays. Answers of an earlier start with
    the same model, supports, settings and pictures that was stopped are kept.

    Args:
        predictor: With everything fitted.
        queries: The pictures.
        out: Folder for the results, used by one process at a time.
        abstain: See `FewShotPredictor.predict`.
        batch_size: See `FewShotPredictor.predict`.
        tile: See `FewShotPredictor.predict`.
        shown: Shows progress: takes the queries that are left and how many there are, and passes them on.

    Raises:
        OSError: The folder cannot be written, or another process works in it.
        ValueError: Nothing has been fitted, or a setting is out of range; nothing is touched then.
    """
    predictor.predict([], batch_size, abstain, tile)  # refuses settings before anything is written
    check_out(out)
    lock.hold(out, "choose another folder with out=DIR")
    try:
        journal = out / JOURNAL
        key = _key(predictor, abstain, tile)
        known = _finished(journal, key)
        skipped: dict[str, str] = {}
        left = [query for query in queries if not _is_there(query, known, out)]
        earlier = len(queries) - len(left)
        fresh = not known
        with journal.open("w" if fresh else "a", encoding="utf-8") as file:
            file.write(f"{key}\n" if fresh else "\n")  # what was cut short ends here
            readable = _read(shown(left, len(left)), QueryReader(predictor.max_pixels), skipped)
            while batch := list(islice(readable, batch_size)):
                answers = predictor.predict([picture for _, picture in batch], batch_size, abstain, tile)
                for (query, _), answer in zip(batch, answers, strict=True):
                    try:
                        entry = _write(replace(answer, name=query.name), query, out)
                    except UnusableNameError as error:
                        _skip(query, error, skipped)
                        continue
                    known[_identity(query)] = entry
                    file.write(json.dumps([_identity(query), entry]) + "\n")
                    file.flush()
        answered = [query for query in queries if _identity(query) in known]
        if answered:
            _write_predictions(out, predictor.classes, [known[_identity(query)] for query in answered])
            _write_sheet(out, [query.name for query in answered])
        journal.unlink()
        return Done(len(answered), earlier, skipped)
    finally:
        lock.release(out)


def check_out(out: Path) -> None:
    """Raises an OSError if results could not be written into a folder, which need not be there yet."""
    for file in (Path(PREDICTIONS), Path(SHEET), Path(MASKS, "picture.png"), Path(OVERLAYS, "picture.jpg")):
        check_target(out / file)


def _read(
    queries: Iterable[Query], reader: QueryReader, skipped: dict[str, str]
) -> Iterator[tuple[Query, np.ndarray]]:
    """Reads queries; those that cannot be used are told and noted in `skipped`."""
    for query in queries:
        try:
            picture = reader.read(query)
        except (ValueError, OSError) as error:
            _skip(query, error, skipped)
        else:
            yield query, picture


def _skip(query: Query, error: Exception, skipped: dict[str, str]) -> None:
    logger.warning("skipped: %s", error)
    skipped[f"{query.file}#{query.frame}" if query.frame else str(query.file)] = str(error)


def _write(answer: Segmentation, query: Query, out: Path) -> dict[str, Any]:
    """Writes mask and overlay; returns what `predictions.json` says of the picture."""
    with whole(out / MASKS / f"{query.name}.png") as unfinished:
        answer.palette().save(unfinished, format="PNG")
    with whole(out / OVERLAYS / f"{query.name}.jpg") as unfinished:
        answer.overlay().save(unfinished, format="JPEG", quality=90)
    told = answer.to_coco(file_name=printable(query.file.name))
    image = told["images"][0]
    if query.frame is not None:
        image["frame"] = query.frame
    image["presence"] = {name: round(score, 4) for name, score in answer.presence.items()}
    return {"image": image, "annotations": told["annotations"]}


def _write_predictions(out: Path, classes: Sequence[str], entries: Sequence[dict[str, Any]]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, entry in enumerate(entries, start=1):
        images.append({**entry["image"], "id": image_id})
        for annotation in entry["annotations"]:
            annotations.append({**annotation, "image_id": image_id, "id": len(annotations) + 1})
    content = {"images": images, "annotations": annotations, "categories": categories(classes)}
    with whole(out / PREDICTIONS) as unfinished:
        unfinished.write_text(as_json(content, indent=None), encoding="utf-8")


def _write_sheet(out: Path, names: Sequence[str]) -> None:
    """A contact sheet of some of the overlays, evenly chosen."""
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(ON_SHEET, len(names))).round().astype(int)]
    pictures = [np.asarray(Image.open(out / OVERLAYS / f"{name}.jpg")) for name in chosen]
    with whole(out / SHEET) as unfinished:
        picture_sheet(pictures, chosen).save(unfinished, format="PNG")


def _key(predictor: FewShotPredictor, abstain: bool, tile: int | None) -> str:
    """Digest of all that answers depend on but the picture."""
    network = predictor.network
    digest = hashlib.sha256(fingerprint(network.segmenter).encode())
    for name in predictor.classes:
        for support in (*predictor.supports(name), *predictor.negatives(name)):
            digest.update(json.dumps(name).encode())
            for tensor in support:
                digest.update(tensor.contiguous().numpy().data)
    settings = predictor.size, predictor.geometry, predictor.threshold, predictor.presence_threshold
    digest.update(json.dumps([*settings, network.precision, network.device.type, abstain, tile]).encode())
    return digest.hexdigest()


def _identity(query: Query) -> str:
    """A picture with its size and time, so that another one under its name is answered anew."""
    try:
        status = query.file.stat()
    except OSError:
        return f"{query.name} missing"
    return f"{query.name} {query.file.name} {status.st_size} {status.st_mtime_ns}"


def _is_there(query: Query, known: Container[str], out: Path) -> bool:
    files = (out / MASKS / f"{query.name}.png", out / OVERLAYS / f"{query.name}.jpg")
    return _identity(query) in known and all(file.is_file() for file in files)


def _finished(journal: Path, key: str) -> dict[str, dict[str, Any]]:
    """What an earlier start has answered; nothing if it was another one. Damaged lines are left out."""
    if not journal.is_file():
        return {}
    first, *lines = journal.read_text(encoding="utf-8", errors="replace").split("\n")
    found: dict[str, dict[str, Any]] = {}
    for line in lines if first == key else ():
        try:
            identity, entry = json.loads(line)
            if entry["image"]["height"] and isinstance(entry["annotations"], list):
                found[identity] = entry
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
