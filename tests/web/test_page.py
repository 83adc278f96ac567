"""The page in a browser, as a visitor uses it."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from support.served_page import Served

from fss.predictor import FewShotPredictor
from fss.web.examples import coins, motorcycle
from fss.web.session import MOST_QUERIES, MOST_SUPPORTS, alike

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
PATIENCE = 180_000  # milliseconds, for busy machines
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # painting needs WebGL, which runs on the processor where there is no graphics card
    options = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    if os.geteuid() == 0:  # as in containers; Chromium's sandbox is for other users
        options.append("--no-sandbox")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser of their own.

    Attributes:
        page: The window.
        requested: Addresses of all that it has asked for.
    """

    def __init__(self, browser: Any, served: Served, size: dict[str, int] = DESKTOP) -> None:
        phone = size is PHONE
        self.page = browser.new_context(viewport=size, is_mobile=phone, has_touch=phone).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requested: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(served.address)
        self.page.wait_for_selector("#find")

    def upload(self, where: str, *files: Path) -> None:
        self.page.set_input_files(f"#{where} input[type=file]", files)

    def shows(self, gallery: str, pictures: int) -> None:
        """Waits until a gallery shows so many pictures."""
        self.page.wait_for_function(
            "([id, n]) => document.querySelectorAll(`#${id} img`).length === n", arg=[gallery, pictures]
        )

    def paint(self) -> None:
        """Paints a line across the middle of the picture."""
        canvas = self.page.locator("#editor canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x - 40, y)
        self.page.mouse.down()
        self.page.mouse.move(x + 40, y + 10, steps=6)
        self.page.mouse.up()
        self.page.wait_for_timeout(500)

    def add_painted(self) -> np.ndarray:
        """Paints and adds an example; returns the opacity (h, w) that the browser has sent for it."""
        for _ in range(5):  # a slow machine may still be loading the picture
            self.paint()
            with self.page.expect_request(lambda request: "layers" in (request.post_data or "")) as sent:
                self.page.click("#add")
            done = self.page.locator("#supports img, .toast-body").first
            done.wait_for()
            if self.page.locator("#supports img").count():
                break
            self.message("Nothing is painted")
        value = next(each for each in json.loads(sent.value.post_data)["data"] if isinstance(each, dict))
        [layer] = value["layers"]
        return np.asarray(Image.open(layer["path"]))[..., 3]

    def picture(self) -> np.ndarray:
        """The picture (h, w, 3) that is looked at closely."""
        with urlopen(self.page.locator("#picture img").get_attribute("src"), timeout=30) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))

    def changed(self, before: np.ndarray) -> np.ndarray:
        """Waits until that picture is another one."""
        for _ in range(PATIENCE // 200):
            if not np.array_equal(now := self.picture(), before):
                return now
            self.page.wait_for_timeout(200)
        raise AssertionError("the picture has not changed")

    def message(self, text: str) -> None:
        """Waits for a message, and closes it."""
        self.page.locator(".toast-body", has_text=text).first.wait_for()
        for close in self.page.locator(".toast-close").all():
            close.click()
        self.page.locator(".toast-body").first.wait_for(state="detached")


def saved(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


def test_from_uploaded_pictures_to_downloaded_masks(
    browser: Any, served: Served, training_free: FewShotPredictor, tmp_path: Path
) -> None:
    support, query = coins().supports[0].image, coins().queries["more coins"]
    visitor = Visitor(browser, served)
    page = visitor.page
    visitor.upload("offered", saved(tmp_path / "support.png", support))
    page.fill("#name input, #name textarea", "old coin")
    opacity = visitor.add_painted()
    page.locator("#editor").wait_for(state="hidden")  # no picture waits to be painted
    assert opacity.shape == support.shape[:2]
    visitor.upload("asked", saved(tmp_path / "query.png", query))
    visitor.shows("results", 1)
    page.click("#find")
    page.wait_for_selector("#picture img")

    expected = alike(training_free).fit(support, opacity >= 32, name="old coin").predict(query)
    answer = visitor.picture()
    assert expected.labels.any()
    assert np.array_equal(answer, np.asarray(expected.overlay()))
    assert "old coin" in page.locator("#results").inner_text()

    page.locator("#threshold input[type=number]").fill("0.55")
    page.locator("#threshold input[type=number]").press("Enter")
    page.locator("#threshold input[type=number]").blur()
    stricter = expected.at(0.55)
    answer = visitor.changed(answer)
    assert np.array_equal(answer, np.asarray(stricter.overlay()))

    with page.expect_download() as download:
        page.click("#save")
    with zipfile.ZipFile(download.value.path()) as archive:
        mask = np.asarray(Image.open(archive.open("masks/query.png")))
        told = json.loads(archive.read("predictions.json"))
    assert np.array_equal(mask, stricter.labels)
    assert len(told["annotations"]) == len(stricter.instances())

    page.locator("#view").get_by_text("Prior mask").click()
    answer = visitor.changed(answer)
    page.locator("#picture img").click(position={"x": 60, "y": 50})
    page.wait_for_selector("#resembled img")
    assert "cosine similarity" in page.locator("#why").inner_text()

    assert {urlsplit(url).hostname for url in visitor.requested if url.startswith("http")} == {"127.0.0.1"}
    tried = [line for line in served.said if "refused to connect" in line and "example.org" not in line]
    assert tried == []  # no library has even asked for another computer; example.org is test_server.py's


def test_a_phone_shows_everything_in_one_column(
    browser: Any, served: Served, training_free: FewShotPredictor
) -> None:
    example, page = motorcycle(), Visitor(browser, served, PHONE).page
    page.get_by_text("Try: Motorcycle").tap()
    page.wait_for_selector("#picture img")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    steps = ("offered", "supports", "asked", "find", "results", "picture")
    boxes = [page.locator(f"#{name}").bounding_box() for name in steps]
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
    assert all(box["width"] > 0.8 * PHONE["width"] for box in boxes)
    assert len(example.queries) == page.locator("#results img").count()


def test_several_classes_are_chosen_by_name(browser: Any, served: Served) -> None:
    visitor = Visitor(browser, served)
    visitor.page.get_by_text("Try: Two shapes").click()
    visitor.shows("results", 4)
    visitor.shows("supports", 4)
    visitor.page.wait_for_selector("#picture img")
    first = visitor.picture()
    visitor.page.locator("#view").get_by_text("Score").click()
    score = visitor.changed(first)
    visitor.page.click("#of input")
    visitor.page.get_by_role("option", name="ring-dots").click()
    visitor.changed(score)
    visitor.page.locator("#results img").nth(1).click()
    visitor.page.locator("#supports img").nth(3).click()
    visitor.page.click("#remove")
    visitor.shows("supports", 3)


@pytest.mark.slow
@pytest.mark.nightly
def test_visitors_see_their_own_pictures_alone(browser: Any, served: Served) -> None:
    first, second = Visitor(browser, served), Visitor(browser, served)
    first.page.get_by_text("Try: Coins").click()
    first.shows("supports", 1)
    second.page.click("#find")
    second.message("Add the pictures to search first")
    assert second.page.locator("#supports img").count() == 0
    second.page.get_by_text("Try: Two shapes").click()
    second.shows("supports", 4)
    first.page.click("#find")
    first.page.wait_for_timeout(500)
    assert first.page.locator("#supports img").count() == 1


def test_mistakes_are_told_and_the_page_stays(browser: Any, served: Served, tmp_path: Path) -> None:
    visitor = Visitor(browser, served)
    text, gigantic = tmp_path / "<b>text<b>.png", tmp_path / "gigantic.png"
    text.write_text("no picture\n")
    Image.new("1", (20_000, 20_000)).save(gigantic)
    small = saved(tmp_path / "small.png", np.full((8, 8, 3), 128, np.uint8))

    visitor.upload("asked", text)
    visitor.message("cannot be read as a picture")
    visitor.upload("asked", gigantic)
    visitor.message("gigantic.png has more than 50 million pixels")
    visitor.upload("asked", *[small] * (MOST_QUERIES + 1))
    visitor.message(f"{MOST_QUERIES + 1} pictures are too many")
    assert visitor.page.locator("#results img").count() == 0
    visitor.upload("offered", gigantic)
    visitor.message("gigantic.png has more than 50 million pixels")
    visitor.upload("offered", *[small] * (MOST_SUPPORTS + 1))
    visitor.message(f"{MOST_SUPPORTS + 1} pictures are too many")
    visitor.upload("offered", tmp_path / "small.png")
    visitor.page.wait_for_selector("#editor canvas")
    visitor.page.wait_for_timeout(500)
    visitor.page.click("#add")
    visitor.message("Nothing is painted yet")
    visitor.page.click("#skip")
    visitor.page.locator("#editor").wait_for(state="hidden")

    visitor.page.get_by_text("Try: Coins").click()
    visitor.shows("results", 1)
    visitor.page.wait_for_selector("#picture img")
