"""From the configuration of predict.py to a folder of answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fss.display.console import PlainConsole
from fss.files.text import printable
from fss.predictor import FewShotPredictor
from fss.predictor.many import OVERLAYS, PREDICTIONS, SHEET, Done, segment_all
from fss.predictor.queries import Query, find_queries
from fss.predictor.support_folder import read_supports

logger = logging.getLogger(__name__)

LINE_EVERY = 20.0  # seconds between lines of progress in a log file


def predict(cfg: DictConfig) -> Done:
    """Fits the supports of a folder and segments pictures.

    Raises:
        FileNotFoundError: Model, supports or queries are not there.
        OSError: The results cannot be written.
        ValueError: A setting is missing or out of range, or supports or the model cannot be used.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"settings without a default: {', '.join(missing)}; give them as {missing[0]}=VALUE")
    queries, unreadable = find_queries(Path(cfg.queries), cfg.every)  # first: it is quick
    supports = read_supports(Path(cfg.supports), cfg.max_pixels)
    predictor = FewShotPredictor.load(cfg.model, cfg.device, cfg.precision, cfg.max_pixels)
    for setting in ("threshold", "presence_threshold"):
        if (value := cfg[setting]) is not None:
            if not 0 <= value <= 1:
                raise ValueError(f"{setting}={value}: must be in 0..1")
            setattr(predictor, setting, value)
    named = [] if cfg.negatives is None else find_queries(Path(cfg.negatives))[0]
    without = [query.file for query in named if query.frame is None]
    predictor.fit(supports, negatives=without)
    told = ", ".join(f"{name} ({len(shots)})" for name, shots in sorted(supports.items()))
    logger.info("classes (supports): %s; %d pictures", told, len(queries))
    out = Path(cfg.out).expanduser()
    done = segment_all(predictor, queries, out, cfg.abstain, cfg.batch_size, cfg.tile, _shown)
    done = done._replace(skipped={**unreadable, **done.skipped})
    console = PlainConsole()
    earlier = f", {done.earlier} of them by an earlier start" if done.earlier else ""
    console.print(f"{done.answered} pictures answered{earlier}, {len(done.skipped)} skipped", soft_wrap=True)
    for reason in list(done.skipped.values())[:20]:
        console.print(f"  skipped: {reason}", soft_wrap=True)
    if len(done.skipped) > 20:
        console.print(f"  and {len(done.skipped) - 20} more")
    console.print(f"Results: {printable(out / PREDICTIONS)}, {OVERLAYS}/, {SHEET}", soft_wrap=True)
    return done


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
