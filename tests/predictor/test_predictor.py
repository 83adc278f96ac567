"""The predictor: equal to an evaluation, whatever the order, from one pass of the backbone; what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import ROOT
from support.predictors import SIZE, predictor, segmenter, shot, verifier
from support.tiny import cheap_svd

from fss.data.episodes import EpisodeDataset, select
from fss.data.index import build_index, build_pool
from fss.data.plan import PictureSteps, plan_episodes, plan_steps
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.shapes import Shapes
from fss.evaluation.reuse import ReusingEvaluator
from fss.geometry import Geometry, at_original_size
from fss.models.tuning import svf
from fss.predictor import Box, FewShotPredictor, Points
from fss.predictor.predictor import PRESENCE, SLACK, UNTRAINED

HEADS = [("pfenet", 1), ("pfenet", 3), ("baseline", 2), ("bam", 2), ("prior", 1)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("geometry", ["published", "exact"])
@pytest.mark.parametrize(("head", "shots"), HEADS)
def test_masks_equal_those_of_an_evaluation(head: str, shots: int, geometry: Geometry) -> None:
    reader = Shapes("val", 64, 60)
    pool = build_pool(build_index(reader), (1, 2, 3), shot=shots, min_pixels=1)
    transform = EvaluationTransform(SIZE, geometry)
    episodes = EpisodeDataset(reader, pool, shots, 0, transform, with_label=True)
    steps = plan_steps(plan_episodes(episodes, [321], 12))
    model = segmenter(head, shots)
    evaluator = ReusingEvaluator(model, PictureSteps(episodes, [steps]), [steps], {}, limit_gb=1)
    found = predictor(head, shots, geometry)
    with torch.inference_mode():
        for episode, prediction, label, _ in evaluator.answer(0, []):
            for number in episode.supports:
                found.fit(reader.image(number), select(reader.mask(number), episode.class_id))
            mine = found.predict(reader.image(episode.query))
            found.forget("object")
            height, width = label.shape
            logits = at_original_size(prediction.logits[0], height, width, geometry)
            np.testing.assert_array_equal(mine.labels, logits.argmax(0).numpy())
            np.testing.assert_array_equal(mine.margins[0], (logits[1] - logits[0]).numpy())
            assert mine.margins.std() > 0


def test_order_of_fits_does_not_matter() -> None:
    shots = {name: [shot(3 * i + j) for j in range(2)] for i, name in enumerate(("cat", "ant", "bee"))}
    query = shot(20)[0]
    one, other = predictor("prior"), predictor("prior")
    one.fit(shots)
    for name in ("bee", "cat", "ant"):
        for picture, mask in shots[name]:
            other.fit(picture, mask, name=name)
    first, second = one.predict(query), other.predict(query)
    assert first.classes == second.classes == ("ant", "bee", "cat")
    np.testing.assert_array_equal(first.margins, second.margins)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert len(np.unique(first.labels)) > 1
    assert first.presence == second.presence


@pytest.mark.parametrize("head", ["pfenet", "bam"])
def test_query_costs_one_pass_whatever_the_classes_and_shots(head: str) -> None:
    passes = {}
    for classes, shots in ((1, 1), (4, 1), (4, 3)):
        found = predictor(head, shots)
        found.fit({f"class {c}": [shot(10 * c + k) for k in range(shots)] for c in range(classes)})
        count = []
        found.segmenter.backbone.get_submodule("layer2").register_forward_hook(lambda *_: count.append(1))  # noqa: B023
        found.predict(shot(5)[0], abstain=False)
        passes[classes, shots] = len(count)
    # BAM's untuned base learner shares this backbone and has no pass of its own
    assert set(passes.values()) == {1}


def test_several_pictures_are_answered_one_after_another_and_in_batches() -> None:
    found = predictor().fit(*shot(0))
    pictures = [shot(n, 40 + n, 60 - n)[0] for n in range(5)]
    asked = iter(pictures)
    answers = found.predict(asked)
    first = next(answers)
    assert len(list(asked)) == 4  # nothing is read ahead
    alone = [found.predict(picture) for picture in pictures]
    np.testing.assert_array_equal(first.labels, alone[0].labels)
    for one, other in zip(found.predict(pictures, batch_size=2), alone, strict=True):
        assert one.labels.shape == other.labels.shape
        np.testing.assert_allclose(one.margins, other.margins, atol=1e-4)


def test_supports_are_kept_exactly(tmp_path: Path) -> None:
    one = predictor().fit({"cup": [shot(0), shot(1)], "ant": [shot(2)]})
    one.save_supports(tmp_path / "supports.safetensors")
    other = predictor().load_supports(tmp_path / "supports.safetensors")
    assert other.classes == ("ant", "cup")
    query = shot(9)[0]
    np.testing.assert_array_equal(one.predict(query).margins, other.predict(query).margins)
    assert one.presence_thresholds() == other.presence_thresholds()


def test_damaged_and_foreign_files_of_supports_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "supports.safetensors"
    predictor().fit(*shot(0), name="cup").save_supports(file)
    larger = FewShotPredictor(segmenter(), 64, device="cpu")
    with pytest.raises(ValueError, match=r"pictures of 48 pixels.*takes 64"):
        larger.load_supports(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="no file of supports"):
        predictor().load_supports(file)
    save_file({"0.0.image": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="no file of supports"):
        predictor().load_supports(file)
    endless = {"format": "fss supports 1", "size": SIZE, "geometry": "exact"}
    endless["classes"] = [[f"{n}", 10_000] for n in range(10_000)]  # their names alone would fill memory
    save_file({"0.0.image": torch.zeros(3)}, file, metadata={"supports": json.dumps(endless)})
    with pytest.raises(ValueError, match="holds other tensors than it says"):
        predictor().load_supports(file)
    predictor().fit(*shot(0), name="cup").save_supports(file)
    tensors = load_file(file)
    with pytest.raises(FileNotFoundError, match="save_supports"):
        predictor().load_supports(tmp_path / "absent")
    for name, value in (("0.0.image", float("nan")), ("0.0.mask", 0)):
        damaged = {**tensors, name: torch.full_like(tensors[name], value)}
        told = {"format": "fss supports 1", "size": SIZE, "geometry": "exact", "classes": [["cup", 1]]}
        save_file(damaged, file, metadata={"supports": json.dumps(told)})
        with pytest.raises(ValueError, match="damaged"):
            predictor().load_supports(file)


def test_a_refused_support_adds_nothing() -> None:
    found = predictor().fit(*shot(0), name="cup")
    picture, mask = shot(1)
    with pytest.raises(ValueError, match=r"support 2 of 'ant': the mask is empty"):
        found.fit([picture, picture], [mask, np.zeros_like(mask)], name="ant")
    with pytest.raises(ValueError, match=r"picture 40 x 56"):
        found.fit({"bee": [shot(1)], "ant": [(picture, mask[1:])]})
    assert found.classes == ("cup",)
    speck = np.zeros((600, 600), bool)
    speck[3, 4] = True
    with pytest.raises(ValueError, match="1 pixels vanishes at the 48 pixels"):
        found.fit(np.zeros((600, 600, 3), np.uint8), speck)
    with pytest.raises(ValueError, match="names no class"):
        found.fit({})
    with pytest.raises(ValueError, match="2 pictures with 1 masks"):
        found.fit([picture, picture], [mask])
    with pytest.raises(ValueError, match="cannot be named"):
        found.fit(picture, mask, name="cup\n")


def test_calls_out_of_turn_and_settings_out_of_range() -> None:
    found = predictor("bam", shot=2)
    picture, mask = shot(0)
    with pytest.raises(ValueError, match="call fit"):
        found.predict(picture)
    found.fit(picture, mask, name="cup")
    with pytest.raises(ValueError, match=r"'cup': a BAM trained with shot=2 got 1"):
        found.predict(picture)
    with pytest.raises(ValueError, match="no class 'ant'; fitted are cup"):
        found.forget("ant")
    with pytest.raises(ValueError, match="device=cuda:99"):
        FewShotPredictor(segmenter(), SIZE, device="cuda:99")
    with pytest.raises(ValueError, match=r"device=None: torch has no such device here \([^\n]*$"):
        FewShotPredictor(segmenter(), SIZE, device=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision='float8'"):
        FewShotPredictor(segmenter(), SIZE, precision="float8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"threshold=1\.5: must be a number in 0\.\.1"):
        FewShotPredictor(segmenter(), SIZE, threshold=1.5)


PICTURE, MASK = shot(0)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda p: p.fit({"a": (PICTURE, MASK)}), r"support 1 of 'a' is no pair .* \[\(picture, mask\), \.\.\.\]"),
        (lambda p: p.fit({"a": [PICTURE]}), "support 1 of 'a' is no pair of picture and mask: give"),
        (lambda p: p.fit({"a": [(PICTURE, MASK), (PICTURE, MASK, "b")]}), "support 2 of 'a' is no pair"),
        (lambda p: p.fit({"a": "cat.jpg"}), "the supports of 'a' are no list: give"),
        (lambda p: p.fit({"a": None}), "the supports of 'a' are no list: give"),
        (
            lambda p: p.fit(PICTURE, Points(cast(Any, (10, 20)))),
            r"support 1 of 'object': Points takes lists of pairs",
        ),
        (lambda p: p.fit([None], [MASK]), "support 1 of 'object': None is no picture: give a file"),
        (lambda p: p.fit([PICTURE, PICTURE], [MASK, None]), "support 2 of 'object': None is no mask: give a file"),
        (lambda p: p.fit(None, MASK), "None is no picture: give a file"),
        (lambda p: p.fit(PICTURE, 5), "type int is no mask: give a file"),
        (lambda p: p.fit(PICTURE, {"a": MASK}), "type dict is no mask: give a file"),
        (lambda p: p.fit([[PICTURE]], [MASK]), "support 1 of 'object': a value of type list is no picture"),
        (lambda p: p.fit("absent.jpg", MASK), r"support 1 of 'object': no picture absent\.jpg"),
        (lambda p: p.fit(PICTURE, "absent.png"), r"support 1 of 'object': no mask absent\.png"),
        (lambda p: p.fit(PICTURE, Box(0, 0, float("inf"), 10)), r"support 1 .*right=inf.*: .* finite numbers"),
        (lambda p: p.fit(PICTURE, Box(float("nan"), 0, 9, 9)), r"support 1 .*left=nan.*: .* finite numbers"),
        (lambda p: p.fit(PICTURE, MASK, name=None), "a class cannot be named None"),
        (lambda p: p.fit(PICTURE, MASK, negatives="."), r"negative 1: \. is a folder, no picture: give its files"),
        (lambda p: p.fit(PICTURE, MASK, negatives=None), "None is no picture of negatives="),
    ],
)
def test_mistakes_with_fit_are_told(fit: Callable[[FewShotPredictor], object], message: str) -> None:
    found = predictor()
    found.segmenter.verifier = verifier(sum(found.segmenter.backbone.channels[:2]))
    found.fit(PICTURE, MASK, name="there already")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        fit(found)
    assert "\n" not in str(error.value)
    assert found.classes == ("there already",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"x", "type bytes is no picture: give a file"),
        (None, "None is no picture"),
        (3, "type int is no picture"),
        ({"a": PICTURE}, "type dict is no picture"),
        ("", "'' is no name of a picture"),
        (ROOT / "docs", "docs is a folder, no picture: give its files, in a list"),
        ("absent.jpg", r"no picture absent\.jpg: give a file that exists"),
        ([[PICTURE]], "picture 1: a value of type list is no picture"),
        ([PICTURE, None], "picture 2: None is no picture"),
        ([PICTURE, PICTURE * 1.0], r"picture 2: a picture of float64 from .*: values must be in 0\.\.1$"),
    ],
)
def test_mistakes_with_predict_are_told(given: Any, message: str) -> None:
    found = predictor().fit(PICTURE, MASK)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list(found.predict(given))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": "2"}, "batch_size='2': must be a whole number"),
        ({"batch_size": 1.5}, r"batch_size=1\.5: must be a whole number"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"tile": 100.5}, r"tile=100\.5: must be a whole number"),
        ({"tile": 7}, "tile=7: must be at least 8"),
    ],
)
def test_settings_of_predict_are_whole_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor().fit(PICTURE, MASK).predict([PICTURE], **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, _: p.save_supports(None), "^path=None: must be the name of a file or folder$"),
        (lambda p, _: p.save_supports(5), "^path=5: must be the name of a file"),
        (lambda p, _: p.save_supports(b"x"), "^path=b'x': must be the name of a file"),
        (lambda p, _: p.save_supports(""), "^path='': must be the name of a file"),
        (lambda p, _: p.save_supports("\0"), "^path=.*: must be the name of a file"),
        (lambda p, _: p.save_supports(["a"]), r"^path=\['a'\]: must be the name of a file"),
        (lambda p, _: p.load_supports(None), "^path=None: must be the name of a file"),
        (lambda p, _: p.load_supports("\0"), "^path=.*: must be the name of a file"),
        (lambda p, _: p.load_supports("x" * 5000), "^no file x.*: give one that save_supports wrote$"),
        (lambda p, _: p.forget(["a"]), r"^no class \['a'\]; fitted are object$"),
        (lambda p, _: p.supports({}), "^no class {}; fitted are object$"),
        (lambda p, _: p.negatives([]), r"^no class \[\]; fitted are object$"),
        (lambda p, _: p.fit(PICTURE, MASK, adapt="no"), "^adapt='no': must be True or False$"),
        (lambda p, _: p.predict(PICTURE, abstain="no"), "^abstain='no': must be True or False$"),
        (lambda _, s: s.save(None), "^folder=None: must be the name of a file or folder$"),
        (lambda _, s: s.instances("5"), "^smallest='5': must be a whole number$"),
        (lambda *_: FewShotPredictor.load(""), "^model='': must be the name of a file"),
        (lambda *_: FewShotPredictor.load("x" * 5000), "^no model x.*: give the folder of a run"),
        (lambda *_: FewShotPredictor(cast(Any, None), SIZE), "^segmenter=None: must be a FewShotSegmenter"),
    ],
)
def test_what_is_no_path_class_or_flag_is_told(
    call: Callable[[Any, Any], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = predictor().fit(PICTURE, MASK)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(found, found.predict(PICTURE))
    assert not list(tmp_path.iterdir())
    assert len(found.supports("object")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "nowhere"}, "^device=nowhere: torch has no such device here"),
        ({"device": "cuda:99"}, "^device=cuda:99: torch has no such device here"),
        ({"device": "meta"}, "^device=meta: torch has no such device here .its tensors have no contents"),
        ({"precision": "16"}, "^precision='16': must be one of 32-true"),
        ({"precision": []}, r"^precision=\[\]: must be one of 32-true"),
        ({"max_pixels": 0}, "^max_pixels=0: must be at least 1"),
    ],
)
def test_settings_are_looked_at_before_a_model_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotPredictor.load("there is none", **settings)


@pytest.mark.parametrize("setting", ["threshold", "presence_threshold"])
@pytest.mark.parametrize("value", [float("nan"), 2, -1, "0.5", None])
def test_thresholds_are_checked_whenever_they_are_set(setting: str, value: Any) -> None:
    found = predictor()
    before = getattr(found, setting)
    with pytest.raises(ValueError, match=f"{setting}=.*: must be a number in 0..1"):
        setattr(found, setting, value)
    assert getattr(found, setting) == before
    setattr(found, setting, np.float32(0.25))
    assert getattr(found, setting) == 0.25


def test_refinement_may_be_changed() -> None:
    found = predictor().fit(PICTURE, MASK)
    plain = found.predict(PICTURE)
    for value in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match=r"refine=.*: must be"):
            found.refine = value  # type: ignore[assignment]
    assert found.refine == 0
    found.refine = cast(int, np.int64(2))
    assert type(found.refine) is int
    followed = found.predict(PICTURE)
    assert not np.allclose(followed.margins, plain.margins)
    found.refine = 0
    np.testing.assert_array_equal(found.predict(PICTURE).margins, plain.margins)


def test_device_is_told_before_a_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fss.predictor.predictor.load_model", lambda _: pytest.fail("work has begun"))
    with pytest.raises(ValueError, match="device=nowhere: torch has no such device here"):
        FewShotPredictor.load("match", device="nowhere")


def test_models_may_be_named_by_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FewShotPredictor.load(Path("prior"), device="cpu")
    assert found.presence_threshold == UNTRAINED
    with pytest.raises(ValueError, match="no model None: give the folder of a run"):
        FewShotPredictor.load(None)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prior").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no prior/config\.yaml: give the folder of a run"):
        FewShotPredictor.load(Path("prior"))


def test_factored_models_are_merged() -> None:
    model = segmenter(seed=3)
    model.tune(lambda backbone: svf(backbone, svd=cheap_svd))
    plain, factored = predictor(seed=3), FewShotPredictor(model, SIZE, device="cpu")
    query = shot(4)[0]
    one, other = (each.fit(*shot(1)).predict(query) for each in (plain, factored))
    np.testing.assert_allclose(one.margins, other.margins, atol=1e-4)
    assert not any(name.endswith(".S") for name, _ in factored.segmenter.named_parameters())


def test_autocast_changes_little() -> None:
    exact = predictor().fit(*shot(1)).predict(shot(4)[0])
    mixed = FewShotPredictor(segmenter(), SIZE, device="cpu", precision="bf16-mixed")
    half = mixed.fit(*shot(1)).predict(shot(4)[0])
    difference = np.abs(exact.scores - half.scores).max()
    assert 0 < difference < 0.05


def test_absent_classes_are_left_out_only_when_asked() -> None:
    picture = shot(7)[0]
    found = predictor("prior").fit({"cup": [shot(0)], "ant": [shot(1)]})
    always = found.predict(picture)
    assert set(np.unique(always.labels)) > {1, 2}
    lower, higher = sorted(always.presence.values())
    assert 0 < lower < higher < 1
    found.presence_threshold = (lower + higher) / 2
    [kept] = [name for name, presence in always.presence.items() if presence == higher]
    abstaining = found.predict(picture, abstain=True)
    assert (abstaining.presence, abstaining.absent) == (always.presence, {"cup", "ant"} - {kept})
    assert abstaining.present == {kept: higher}
    only = predictor("prior").fit({kept: [shot({"cup": 0, "ant": 1}[kept])]}).predict(picture)
    np.testing.assert_array_equal(abstaining.mask(kept), only.mask(kept))


def test_threshold_is_the_lowest_presence_of_a_left_out_support() -> None:
    shots = [shot(n) for n in range(3)]
    found = predictor().fit({"cup": shots, "ant": [shot(9)]})
    left_out = []
    for number, (picture, _) in enumerate(shots):
        others = predictor().fit({"cup": shots[:number] + shots[number + 1 :]})
        left_out.append(others.predict(picture).presence["cup"])
    expected = (SLACK * min(left_out) + PRESENCE) / 2
    assert found.presence_thresholds()["cup"] == pytest.approx(expected, rel=1e-5)
    assert found.presence_thresholds()["ant"] == PRESENCE
    bam = predictor("bam", shot=2).fit({"cup": shots[:2]})  # takes neither one support nor three
    assert bam.presence_thresholds() == {"cup": PRESENCE}


def test_a_models_own_threshold_holds_for_any_number_of_supports(tmp_path: Path) -> None:
    model = segmenter()
    model.verifier = verifier(sum(model.backbone.channels[:2]), threshold=0.31)
    found = FewShotPredictor(model, SIZE, device="cpu").fit({"cup": [shot(0)], "ant": [shot(1), shot(2)]})
    assert found.presence_thresholds() == {"cup": 0.31, "ant": 0.31}
    answer, plain = found.predict(shot(5)[0]), predictor().fit({"cup": [shot(0)]}).predict(shot(5)[0])
    np.testing.assert_array_equal(answer.margins[1], plain.margins[0])
    assert answer.presence["cup"] != plain.presence["cup"]


def test_negatives_become_known(tmp_path: Path) -> None:
    def made() -> FewShotPredictor:
        model = segmenter()
        model.verifier = verifier(sum(model.backbone.channels[:2]))
        return FewShotPredictor(model, SIZE, device="cpu")

    query, without = shot(7)[0], [shot(n, 30, 44)[0] for n in (5, 6)]
    plain = made().fit(*shot(0), name="cup").predict(query)
    found = made().fit(*shot(0), name="cup", negatives=without)
    answer = found.predict(query)
    np.testing.assert_array_equal(answer.margins, plain.margins)
    assert answer.presence["cup"] < plain.presence["cup"]  # the pictures are much alike
    assert found.predict(without[0]).presence["cup"] < made().fit(*shot(0)).predict(without[0]).presence["object"]
    found.save_supports(tmp_path / "supports.safetensors")
    again = made().load_supports(tmp_path / "supports.safetensors")
    assert [len(again.supports("cup")), len(again.negatives("cup"))] == [1, 2]
    assert again.predict(query).presence == answer.presence
    assert found.forget("cup").fit(*shot(0), name="cup").predict(query).presence == plain.presence
    with pytest.raises(ValueError, match="negatives= needs a model that base classes have taught"):
        predictor().fit(*shot(0), negatives=without)


def test_needs_neither_lightning_nor_hydra_nor_albumentations() -> None:
    code = (
        "import sys; from fss.predictor import FewShotPredictor; FewShotPredictor.load('prior'); "
        "print({'lightning', 'hydra', 'omegaconf', 'albumentations', 'torchmetrics', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr
