"""Writes the report as report.md and report.html, each a self-contained file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from fss.display.shown import shown
from fss.evaluation.results import BEST, PICTURES, WORST, Spread
from fss.files.whole import whole
from fss.report.claims import BACKBONES, DATASETS, load_claims, published
from fss.report.commands import commands
from fss.report.curves import learning_curves
from fss.report.escape import Ours, in_code, in_html, in_markdown, without_places
from fss.report.found import Evaluation, Found
from fss.report.tables import comparisons, matrices, show
from fss.report.verify import Measured, Status, Verdict, verify

STATUSES: dict[Status, str] = {"verified": "✓", "differs": "≠", "running": "…", "not run": "–"}
_SHEETS = ((PICTURES, "the first"), (WORST, "the worst"), (BEST, "the best"))
_MOST_SHEETS = 6  # evaluations whose pictures are embedded: three sheets of about 150 kB each
_WIDTH = 900  # pixels; width of an embedded sheet
_LARGEST = 50_000_000  # pixels of a sheet


class Line(NamedTuple):
    """A claim in a table: what is known about it, and the commands for what is missing."""

    verdict: Verdict
    commands: list[str]


class Section(NamedTuple):
    """One of the paper's tables."""

    title: str
    lines: list[Line]

    @property
    def has_begun(self) -> bool:
        """Whether any of its claims has been run."""
        return any(line.verdict.status != "not run" or line.verdict.measured for line in self.lines)


class Sheets(NamedTuple):
    """Pictures of one evaluation, each a description of its episodes and a data URI."""

    title: str
    pictures: list[tuple[str, str]]


def write_report(found: Found, out: Path) -> list[Path]:
    """Writes report.md and report.html, both or none.

    Args:
        found: The runs and evaluations to report.
        out: Folder for the pages, created if missing.

    Returns:
        The two files.
    """
    lines = [Line(verdict, commands(verdict, found)) for verdict in verify(load_claims(), found)]
    evaluations = found.evaluations
    content: dict[str, Any] = {
        "evaluations": evaluations,
        "revisions": sorted({str(e.metrics["git_revision"]) for e in evaluations}),
        "counts": Counter(line.verdict.status for line in lines),
        "lines": lines,
        "first": [line for line in lines if line.verdict.claim.first],
        "sections": _sections(lines),
        "sources": list({line.verdict.claim.source.arxiv: line.verdict.claim.source for line in lines}.values()),
        "comparisons": comparisons(evaluations),
        "matrices": matrices(evaluations),
        "curves": learning_curves(list(found.runs.values())),
        "sheets": _sheets(evaluations),
    }
    pages = {}
    for name in ("report.md", "report.html"):
        is_html = name.endswith("html")
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=is_html,
            finalize=in_html if is_html else in_markdown,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=StrictUndefined,
        )
        environment.filters |= {
            "points": points,
            "signed": signed,
            "way": way,
            "published": published,
            "show": show,
            "code": in_code,
            "ours": Ours,
        }
        environment.globals |= {"datasets": DATASETS, "backbones": BACKBONES, "statuses": STATUSES}
        pages[out / name] = environment.get_template(f"{name}.j2").render(content)
    with ExitStack() as stack:  # both or none
        for path, page in pages.items():
            stack.enter_context(whole(path)).write_text(page, encoding="utf-8")
    return list(pages)


def points(value: Spread | None) -> str:
    """Formats a percentage with its standard deviation over training seeds."""
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + (f" ± {value.std:.2f}" if value.std is not None else "")


def signed(value: float | None) -> str:
    """Formats a difference in percentage points."""
    return "-" if value is None else f"{value:+.2f}".replace("-", "−")


def way(measured: Measured) -> str:
    """Describes how something was measured."""
    how = measured.way
    weights = "checkpoint files" if how.weights == "file" else f"{how.weights} weights"
    selected = "" if how.selection == "none" else f" (selected on {how.selection})"
    seeds = "1 training seed" if measured.seeds == 1 else f"{measured.seeds} training seeds"
    episodes = f"{how.episodes} episodes" + (f" × {len(how.eval_seeds)}" if len(how.eval_seeds) > 1 else "")
    facts = [weights + selected, seeds, f"protocol {how.protocol}: {episodes}"]
    if how.backbone.endswith("_deep"):
        facts.append(how.backbone)
    if how.place:
        facts.append(f"in {how.place}")
    facts += map(without_places, how.own_settings)
    return ", ".join(facts)


def _sections(lines: Sequence[Line]) -> list[Section]:
    sections: dict[str, list[Line]] = {}
    for line in lines:
        claim = line.verdict.claim
        sections.setdefault(f"{DATASETS[claim.dataset]}, {claim.shot}-shot", []).append(line)
    return [Section(title, members) for title, members in sections.items()]


def _sheets(evaluations: Sequence[Evaluation]) -> list[Sheets]:
    """Pictures of up to six evaluations, those with the most kinds of pictures first."""
    there = [(e, [(f, w) for f, w in _SHEETS if is_sheet(e.path.with_name(f))]) for e in evaluations]
    chosen = sorted((pair for pair in there if pair[1]), key=lambda pair: -len(pair[1]))[:_MOST_SHEETS]
    return [
        Sheets(_title(e.metrics, e), [(words, _data_uri(e.path.with_name(file))) for file, words in files])
        for e, files in chosen
    ]


def is_sheet(path: Path) -> bool:
    """Whether a picture is there, and no link, which could lead to one that nobody means to share."""
    return path.is_file() and not path.is_symlink()


def _title(m: dict[str, Any], evaluation: Evaluation) -> str:
    return (
        f"{m['dataset']}, fold {m['fold']}, {m['shot']}-shot: {m['method']}, {m['tuning']}, {m['backbone']}, "
        f"seed {m['seed']}, {evaluation.weights} weights"
    )


def _data_uri(picture: Path) -> str:
    """As WebP of the page's width.

    Raises:
        ValueError: It is no picture, or larger than any contact sheet.
    """
    try:
        with Image.open(picture, formats=["PNG"]) as opened:
            if opened.width * opened.height > _LARGEST:
                raise ValueError(f"{opened.width} x {opened.height} pixels")
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{picture} is no contact sheet of an evaluation ({shown(error)}): delete it") from error
    image.thumbnail((_WIDTH, 100_000))
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
