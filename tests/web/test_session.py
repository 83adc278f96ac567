"""One visitor's supports, queries and answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fss.predictor import FewShotPredictor
from fss.web.examples import EXAMPLES, Shown, coins, shapes
from fss.web.session import (
    LONGEST,
    MOST_CLASSES,
    MOST_QUERIES,
    MOST_SUPPORTS,
    PREVIEW,
    Session,
    alike,
    read_upload,
)


def support(name: str = "coin", size: tuple[int, int] = (60, 80)) -> Shown:
    image = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), np.uint8)
    mask = np.zeros(size, bool)
    mask[10:40, 20:50] = True
    return Shown(name, image, mask)


def saved(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


def asked(training_free: FewShotPredictor, tmp_path: Path) -> Session:
    """A session with the worked example of coins, whose query is a file."""
    example, session = coins(), Session()
    session.show(example.supports[0], training_free)
    assert session.ask([saved(tmp_path / "more coins.png", example.queries["more coins"])]) == []
    session.search()
    return session


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples_are_answered_as_the_predictor_answers(name: str, training_free: FewShotPredictor) -> None:
    example, session = EXAMPLES[name](), Session()
    session.take(example, training_free)
    assert all(max(query.preview.shape) <= PREVIEW for query in session.queries)
    session.search()
    alone = alike(training_free)
    for shown in example.supports:
        alone.fit(shown.image, shown.mask, name=shown.name)
    assert [found.name for found in session.found] == list(example.queries)
    for found, image in zip(session.found, example.queries.values(), strict=True):
        expected = alone.predict(image)
        assert np.array_equal(found.labels, expected.labels)


def test_the_coins_are_found(training_free: FewShotPredictor, tmp_path: Path) -> None:
    [found] = asked(training_free, tmp_path).found
    middle = [found.labels[y, x] for x, y in ((43, 38), (101, 36), (212, 34), (113, 106), (243, 104), (300, 103))]
    between = [found.labels[y, x] for x, y in ((72, 70), (180, 70), (5, 5))]
    assert middle == [1] * 6
    assert between == [0] * 3


def test_what_counts_as_found_can_be_changed_without_searching_again(
    training_free: FewShotPredictor, tmp_path: Path
) -> None:
    session = asked(training_free, tmp_path)
    [found] = session.found
    [answer] = session.answers()
    assert np.array_equal(answer.labels, found.labels)
    session.threshold = 0.6
    assert np.array_equal(session.answers()[0].labels, found.at(0.6).labels)
    session.presence = found.presence["coin"] + 0.01
    assert session.answers()[0].present == {}
    assert not session.answers()[0].labels.any()
    session.found = [replace(found, absent=frozenset({"coin"}))]
    session.presence = found.presence["coin"]
    assert np.array_equal(session.answers()[0].labels, found.at(0.6).labels)
    session.presence = None
    assert session.answers()[0].present == {}


def test_visitors_do_not_see_each_others_supports(training_free: FewShotPredictor) -> None:
    first, second = Session(), Session()
    first.show(support("cup"), training_free)
    second.show(support("plate"), training_free)
    assert (first.predictor.classes, second.predictor.classes, training_free.classes) == (("cup",), ("plate",), ())
    assert first.predictor.segmenter is second.predictor.segmenter is training_free.segmenter


def test_removing_a_support_leaves_what_the_others_say(training_free: FewShotPredictor) -> None:
    example, session, without = shapes(), Session(), Session()
    session.take(example, training_free)
    for shown in (example.supports[0], *example.supports[2:]):
        without.show(shown, training_free)
    without.queries = session.queries
    session.remove(1)
    session.search()
    without.search()
    for found, expected in zip(session.found, without.found, strict=True):
        assert np.array_equal(found.margins, expected.margins)


def test_removing_the_last_support_of_a_class_removes_the_class(training_free: FewShotPredictor) -> None:
    session = Session()
    session.show(support("cup"), training_free)
    session.show(support("plate"), training_free)
    session.remove(0)
    assert session.classes == list(session.predictor.classes) == ["plate"]
    session.remove(0)
    with pytest.raises(ValueError, match="Show an example"):
        _ = session.predictor
    with pytest.raises(ValueError, match="Choose an example"):
        session.remove(0)


def test_changes_make_answers_go(training_free: FewShotPredictor, tmp_path: Path) -> None:
    session = asked(training_free, tmp_path)
    session.show(support(), training_free)
    assert session.found == []
    with pytest.raises(ValueError, match="Find something first"):
        session.explain("coin")


def test_downloads_have_the_pictures_own_size(training_free: FewShotPredictor, tmp_path: Path) -> None:
    session, example = Session(), coins()
    session.show(example.supports[0], training_free)
    large = cv2.resize(example.queries["more coins"], (LONGEST + 500, 700))
    session.ask([saved(tmp_path / "large.png", large)])
    session.search()
    assert session.found[0].labels.shape == (round(700 * LONGEST / (LONGEST + 500)), LONGEST)
    session.threshold = 0.55
    own = session.at_own_size(0)
    expected = (
        alike(training_free).fit(example.supports[0].image, example.supports[0].mask, name="coin").predict(large)
    )
    assert np.array_equal(own.labels, expected.at(0.55).labels)
    assert own.name == "large"


def test_large_supports_are_reduced_with_their_masks(training_free: FewShotPredictor) -> None:
    session, (name, image, mask) = Session(), support()
    size = (2 * LONGEST, 3 * LONGEST // 2)
    session.show(Shown(name, cv2.resize(image, size), cv2.resize(mask.astype(np.uint8), size) > 0), training_free)
    [kept] = session.supports
    assert kept.image.shape[:2] == kept.mask.shape == (LONGEST * 3 // 4, LONGEST)
    assert abs(kept.mask.mean() - mask.mean()) < 0.01


def test_unusable_files_are_named_and_the_rest_is_taken(tmp_path: Path) -> None:
    text, bomb = tmp_path / "text.png", tmp_path / "gigantic.png"
    text.write_text("no picture\n")
    Image.new("1", (20_000, 20_000)).save(bomb)
    good = saved(tmp_path / "good.png", support().image)
    session = Session()
    wrong = session.ask([text, bomb, good, tmp_path / "gone.png"])
    assert [query.name for query in session.queries] == ["good"]
    assert len(wrong) == 3
    assert wrong[0].startswith("text.png cannot be read as a picture")
    assert wrong[1] == "gigantic.png has more than 50 million pixels: make it smaller"
    assert wrong[2] == "gone.png: it is gone, add it again"
    assert str(tmp_path) not in "".join(wrong)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by a quarter
    Image.fromarray(support().image).save(tmp_path / "turned.jpg", exif=exif)
    assert read_upload(tmp_path / "turned.jpg").shape == (80, 60, 3)


def test_too_many_queries(tmp_path: Path) -> None:
    file, session = saved(tmp_path / "same.png", support().image), Session()
    with pytest.raises(ValueError, match=f"200 pictures are too many: the page takes {MOST_QUERIES} at a time"):
        session.ask([file] * 200)
    assert session.queries == []
    assert session.ask([file] * MOST_QUERIES) == []
    assert len({query.name for query in session.queries}) == MOST_QUERIES
    with pytest.raises(ValueError, match=f"there are {MOST_QUERIES} already"):
        session.ask([file])


def test_too_many_supports_and_classes(training_free: FewShotPredictor) -> None:
    session = Session()
    for number in range(MOST_CLASSES):
        session.show(support(f"thing {number}"), training_free)
    with pytest.raises(ValueError, match=f"{MOST_CLASSES} different things"):
        session.show(support("one more"), training_free)
    for _ in range(MOST_SUPPORTS - MOST_CLASSES):
        session.show(support("thing 0"), training_free)
    with pytest.raises(ValueError, match=f"takes {MOST_SUPPORTS} examples"):
        session.show(support("thing 0"), training_free)
    assert len(session.supports) == MOST_SUPPORTS


@pytest.mark.parametrize("name", ["", "  ", "a" * 61, "a\x1b[2J", "a\u202eb"])
def test_names_that_cannot_be_shown(name: str, training_free: FewShotPredictor) -> None:
    with pytest.raises(ValueError, match="short name"):
        Session().show(support(name), training_free)


def test_spaces_around_a_name_do_not_matter(training_free: FewShotPredictor) -> None:
    session = Session()
    session.show(support("  red   mug "), training_free)
    assert session.classes == ["red mug"]


def test_an_object_too_small_to_be_seen_is_refused(training_free: FewShotPredictor) -> None:
    session, mask = Session(), np.zeros((900, 900), bool)
    mask[450, 450] = True
    with pytest.raises(ValueError, match="vanishes"):
        session.show(Shown("dot", np.zeros((900, 900, 3), np.uint8), mask), training_free)
    assert session.supports == []


def test_too_many_pictures_to_paint(tmp_path: Path) -> None:
    file, session = saved(tmp_path / "same.png", support().image), Session()
    with pytest.raises(ValueError, match="200 pictures are too many"):
        session.offer([file] * 200)
    session.offer([file] * MOST_SUPPORTS)
    with pytest.raises(ValueError, match="1 pictures are too many"):
        session.offer([file])
    assert len(session.waiting) == MOST_SUPPORTS


def test_pictures_are_painted_one_after_another(tmp_path: Path) -> None:
    session = Session()
    text = tmp_path / "text.png"
    text.write_text("no picture")
    first, second = (saved(tmp_path / f"{n}.png", support(size=(n, 9)).image[:, :9]) for n in (50, 60))
    session.offer([text, first, second])
    assert len(session.next_to_paint()) == 1
    assert session.painting is not None
    assert (len(session.painting), session.waiting) == (50, [second])
    assert session.next_to_paint() == []
    assert len(session.painting) == 60
    session.next_to_paint()
    assert session.painting is None


def test_search_without_supports_or_queries(training_free: FewShotPredictor, tmp_path: Path) -> None:
    session = Session()
    with pytest.raises(ValueError, match="step 2"):
        session.search()
    session.ask([saved(tmp_path / "one.png", support().image)])
    with pytest.raises(ValueError, match="step 1"):
        session.search()
