"""From the configuration of predict.py to a folder of answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from omegaconf import DictConfig
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fss.cli import kinds
from fss.display.console import PlainConsole
from fss.files.text import printable, some
from fss.predictor import FewShotPredictor
from fss.predictor.many import OVERLAYS, PREDICTIONS, SHEET, Done, check_out, segment_all
from fss.predictor.network import find_device
from fss.predictor.queries import Query, find_queries
from fss.predictor.support_folder import read_supports
from fss.predictor.tiles import SMALLEST

logger = logging.getLogger(__name__)

_KINDS = {
    **dict.fromkeys(("model", "supports", "queries", "out"), kinds.path),
    "negatives": kinds.optional(kinds.path),
    "abstain": kinds.flag,
    **dict.fromkeys(("threshold", "presence_threshold"), kinds.optional(kinds.fraction)),
    "refine": kinds.optional(kinds.whole(0)),
    "tile": kinds.optional(kinds.whole(SMALLEST)),
    **dict.fromkeys(("every", "batch_size", "max_pixels"), kinds.whole(1)),
    "device": kinds.text,
    "precision": kinds.precision,
}
LINE_EVERY = 20.0  # seconds between lines of progress in a log file


def predict(cfg: DictConfig) -> Done:
    """Fits the supports of a folder and segments pictures.

    Raises:
        FileNotFoundError: Model, supports or queries are not there.
        OSError: The results cannot be written.
        ValueError: A setting is missing or out of range, or supports or the model cannot be used.
    """
    kinds.check_given(cfg)
    kinds.check(cfg, _KINDS)
    out = Path(cfg.out).expanduser()
    check_out(out)
    find_device(cfg.device)  # complains before anything is read
    queries, unreadable = find_queries(Path(cfg.queries), cfg.every)  # first: it is quick
    without = [] if cfg.negatives is None else _negatives(Path(cfg.negatives))
    supports = read_supports(Path(cfg.supports), cfg.max_pixels)
    predictor = FewShotPredictor.load(cfg.model, cfg.device, cfg.precision, cfg.max_pixels)
    for setting in ("threshold", "presence_threshold", "refine"):
        if (value := cfg[setting]) is not None:
            setattr(predictor, setting, value)
    predictor.fit(supports, negatives=without)
    told = ", ".join(f"{name} ({len(shots)})" for name, shots in sorted(supports.items()))
    logger.info("classes (supports): %s; %d pictures", told, len(queries))
    done = segment_all(predictor, queries, out, cfg.abstain, cfg.batch_size, cfg.tile, _shown)
    done = done._replace(skipped={**unreadable, **done.skipped})
    console = PlainConsole()
    earlier = f", {done.earlier} of them by an earlier start" if done.earlier else ""
    console.print(f"{done.answered} pictures answered{earlier}, {len(done.skipped)} skipped", soft_wrap=True)
    for reason in list(done.skipped.values())[:20]:
        console.print(f"  skipped: {reason}", soft_wrap=True)
    if len(done.skipped) > 20:
        console.print(f"  and {len(done.skipped) - 20} more")
    if not done.answered:
        console.print("No results: nothing is written where no picture could be used")
        return done
    console.print(f"Results: {printable(out / PREDICTIONS)}, {OVERLAYS}/, {SHEET}", soft_wrap=True)
    return done


def _negatives(place: Path) -> list[Path]:
    """The pictures at a place.

    Raises:
        FileNotFoundError: There are none.
        ValueError: There are videos, which nobody would miss otherwise.
    """
    found, unreadable = find_queries(place)
    videos = dict.fromkeys([*(query.file.name for query in found if query.frame is not None), *unreadable])
    if videos:
        raise ValueError(
            f"negatives={printable(place)} holds videos ({some(map(printable, videos))}): negatives are pictures, "
            "take frames out of them or leave them out"
        )
    return [query.file for query in found]


def _shown(queries: Iterable[Query], total: int) -> Iterator[Query]:
    """Passes queries on and shows how many are done: a bar in a terminal, lines in a log file."""
    if get_console().is_interactive:
        columns = (
            TextColumn("Pictures"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, transient=True) as progress:
            yield from progress.track(queries, total)
        return
    began = told = time.monotonic()
    for number, query in enumerate(queries):
        if (now := time.monotonic()) - told > LINE_EVERY:
            left = timedelta(seconds=round((now - began) / number * (total - number)))
            logger.info("%d of %d pictures, ETA %s", number, total, left)
            told = now
        yield query
