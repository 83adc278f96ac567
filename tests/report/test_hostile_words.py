"""What a file says is shown as words: on pages, in drawings, on terminals."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from support import made_up

from fss.display.console import PlainConsole
from fss.display.shown import shown
from fss.evaluation.results import summarize
from fss.evaluation.tables import evaluation_table
from fss.report.__main__ import main
from fss.report.escape import in_markdown, without_places

ROOT = next(folder for folder in Path(__file__).parents if (folder / "train.py").is_file())
HOSTILE = [
    "[/red]",
    "[bold red]x[/bold red] [link=http://evil]",
    "$\\frac{$",
    "$x^2$",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "# heading\n# another",
    "a | b ``` ` ** _ ~~",
    "\u202egnp.exe",
    ":smile:",
    "http://evil www.evil.example a@evil.example",
    "1. one",
    "- dash",
    "_hidden",
    "{{ 7 * 7 }}",
    "&lt;b&gt; &amp; &#60;",
    "é日本👩‍👩‍👧",
    "x" * 5000,
]


class Page(HTMLParser):
    """The elements of a page with the attributes that can do something, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.acting: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.acting += [tag] * (tag in ("script", "iframe", "form", "object"))
        for name, value in attributes:
            is_known = re.match("https://arxiv|data:|#", value or "")
            if name.startswith("on") or (name in ("href", "src") and not is_known):
                self.acting.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(outputs: Path, name: str) -> tuple[str, str]:
    """report.md and report.html of a run that calls everything so."""
    made_up.run(outputs, [f"method.head.width={name}", "method.weights=/home/ann/secret/weights.pth"], seed=0)
    made_up.evaluation(outputs, made=made_up.episodes(0.5, [name, "other"]), changes={"git_revision": name})
    for file in outputs.rglob("config.yaml"):
        config = yaml.safe_load(file.read_text())
        config["method"]["name"] = name
        file.write_text(yaml.safe_dump(config))
    assert main([str(outputs)]) == 0
    return (outputs / "report.md").read_text(), (outputs / "report.html").read_text()


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_do_nothing_on_pages_and_terminals(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    markdown, html = report(tmp_path, name)
    printed = capsys.readouterr()
    for text in (markdown, html, printed.out, printed.err):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "/home/ann" not in text
    page = Page(html)
    assert page.acting == []
    assert any(shown(name) in words for words in page.words)
    rendered = MarkdownIt("commonmark").enable("table").render(markdown)
    assert Page(rendered).acting == []
    assert rendered.count("<h1>") == 1
    assert "<img" not in rendered
    assert shown(name) in "".join(Page(rendered).words)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_do_nothing_in_the_table_of_an_evaluation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("dataset", "train_dataset", "method", "tuning", "backbone", "protocol", "checkpoint")
    told: dict[str, Any] = dict.fromkeys(keys, name)
    told |= {"selection": "none", "eval_classes": name, "support_annotation": "mask", "eval_seeds": [321]}
    numbers = {"fold": 0, "shot": 1, "episodes": 8, "trained_parameters": 3}
    metrics = {**told, **numbers, **summarize(made_up.episodes(0.5, [name]))}
    PlainConsole(width=20_000).print(evaluation_table(metrics))
    printed = capsys.readouterr().out
    assert shown(name) in printed
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)


def test_places_are_left_out() -> None:
    assert without_places("backbone.weights=/home/ann/w.pth") == "backbone.weights=.../w.pth"
    assert without_places("x=~/cats, y='/a b'") == "x=.../cats, y='.../a b'"
    assert without_places(r"x=C:\Users\ann\w.pth") == "x=.../w.pth"
    assert without_places("lr=1/2 a/b dataset=coco20i") == "lr=1/2 a/b dataset=coco20i"
    assert without_places("x=[/a/b,/c/d/]") == "x=[.../b,.../d]"


def test_numbers_and_dashes_stay_as_they_are() -> None:
    assert [in_markdown(value) for value in (3, 0.5, "-", "62.30 ± 0.12", "+0.30", "pfenet, frozen")] == [
        *("3", "0.5", "-", "62.30 ± 0.12", "+0.30", "pfenet, frozen"),
    ]


def test_pictures_elsewhere_are_not_put_into_a_page(tmp_path: Path) -> None:
    folder = made_up.evaluation(tmp_path)
    (tmp_path / "private.png").write_bytes(b"anything")
    (folder / "episodes.png").symlink_to(tmp_path / "private.png")
    assert main([str(tmp_path)]) == 0
    (folder / "episodes.png").unlink()
    (folder / "episodes.png").write_bytes(b"anything")
    assert main([str(tmp_path)]) == 2


def test_damaged_settings_of_a_run_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_up.run(tmp_path)
    file = folder / "config.yaml"
    code = "!!python/object/apply:os.getcwd []"
    for content in ("", "[]", "fold: x", "a: &a [x]\nb: *a", code, "{" * 3000, "\0"):
        file.write_text(content)
        assert main([str(tmp_path)]) == 2
        assert "config.yaml" in capsys.readouterr().err


def test_report_on_a_full_disk_leaves_the_older_pages(tmp_path: Path) -> None:
    made_up.evaluation(tmp_path)
    script = (
        "import os, sys; from pathlib import Path; from fss.report.__main__ import main\n"
        "out = Path(sys.argv[1]); assert main([str(out)]) == 0\n"
        "(out / f'.report.html.{os.getpid()}.part').symlink_to('/dev/full')\n"
        "(out / 'report.md').write_text('older'); sys.exit(main([str(out)]))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*report\.html could not be written \(.*No space left.*\n", done.stderr)
    assert (tmp_path / "report.md").read_text() == "older"
    assert not list(tmp_path.glob(".*.part"))
