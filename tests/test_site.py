"""The site's pages out of files at the top of the checkout, and the look for what a browser would load."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest
import yaml
from support import ROOT

from checks import site


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[a](docs/methods.md)", "[a](methods.md)"),
        ("[a](docs/methods.md#tunings)", "[a](methods.md#tunings)"),
        ("![a](docs/demo.png)", "![a](demo.png)"),
        ("[a](CONTRIBUTING.md) and [b](README.md)", "[a](contributing.md) and [b](index.md)"),
        ("[a](LICENSE)", "[a](LICENSE)"),
        ("[a](https://arxiv.org/abs/2206.06122)", "[a](https://arxiv.org/abs/2206.06122)"),
    ],
)
def test_links_lead_to_pages_of_the_site(markdown: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(markdown)
    assert site.page(file) == expected


def test_links_out_of_the_documents() -> None:
    assert site.on_page_markdown("[a](../CONTRIBUTING.md#style)", page=None) == "[a](contributing.md#style)"


def test_blocks_with_the_name_of_a_file() -> None:
    """Which the site's Markdown takes for plain text if it stands there without a key."""
    markdown = "```python mine/a.py\nx\n```\n\n```sh\ny\n```\n"
    assert site.on_page_markdown(markdown, page=None) == markdown.replace("mine/a.py", 'title="mine/a.py"')


def test_every_block_of_a_page_is_one_on_the_site() -> None:
    opened = re.compile(r"^```(\w*( title=\"[\w./-]+\")?)?$")
    for document in (ROOT / "docs").rglob("*.md"):
        lines = site.on_page_markdown(document.read_text(), page=None).splitlines()
        assert [line for line in lines if line.startswith("```") and not opened.match(line)] == []


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<script src="https://a.b/x.js"></script>', ["https://a.b/x.js"]),
        ("<script defer src='//a.b/x.js'>", ["//a.b/x.js"]),
        ('<link rel="stylesheet" href="https://a.b/x.css">', ["https://a.b/x.css"]),
        ('<link href="https://fonts.a/" rel="preconnect" crossorigin>', ["https://fonts.a/"]),
        ('<img alt="x" src="http://a.b/x.png">', ["http://a.b/x.png"]),
        ('body{background:url("https://a.b/x.png")}', ["https://a.b/x.png"]),
        ('@import "https://a.b/x.css";', ["https://a.b/x.css"]),
        ('<a href="https://a.b">x</a><link rel="canonical" href="https://a.b/">', []),
        ('<script src="assets/x.js"></script><img src="demo.png"><link rel="stylesheet" href="x.css">', []),
        ('<svg xmlns="http://www.w3.org/2000/svg"></svg>', []),
    ],
)
def test_what_a_browser_loads(html: str, expected: list[str]) -> None:
    assert site.loads(html) == expected


@pytest.mark.parametrize(("text", "code"), [("<p>x</p>", 0), ('<script src="https://a.b/x.js"></script>', 1)])
def test_command(text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/index.html").write_text(text)
    monkeypatch.setattr(sys, "argv", ["site", str(tmp_path)])
    assert site.main() == code


def test_every_document_has_its_place() -> None:
    """As `mkdocs build --strict` demands; here also where it is not installed."""
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = [entry for section in yaml.safe_load(nav)["nav"] for entry in _pages(section)]
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages) == documents | set(site.PAGES.values())
    assert len(set(pages)) == len(pages)


@pytest.mark.parametrize("package", ["svf", "models.backbones", "models.heads", "predictor"])
def test_the_reference_has_all_that_is_public(package: str) -> None:
    page = ROOT / "docs/api" / f"{package.rpartition('.')[2]}.md"
    named = [line.removeprefix("::: ") for line in page.read_text().splitlines() if line.startswith("::: ")]
    for name in named:
        pkgutil.resolve_name(name)  # raises
    public = importlib.import_module(f"fss.{package}").__all__
    assert set(public) <= {name.rpartition(".")[2] for name in named}


def _pages(entry: object) -> list[str]:
    if isinstance(entry, dict):
        return [page for value in entry.values() for page in _pages(value)]
    if isinstance(entry, list):
        return [page for value in entry for page in _pages(value)]
    return [str(entry)]
