"""Several and absent classes: the counts, and the same answers as a predictor gives."""

from __future__ import annotations

import lightning
import numpy as np
import pytest
import torch
from support.predictors import SIZE, predictor, segmenter, verifier

from fss.data.episodes import EpisodeDataset, select
from fss.data.index import build_index, build_pool, images_by_class
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.shapes import Shapes
from fss.data.several_episodes import SeveralEpisodes
from fss.evaluation.absence import choose, choose_threshold, learn_verifier
from fss.evaluation.several_answers import SeveralEvaluation
from fss.evaluation.several_scores import Answer, SeveralIoU, known, where_present

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = (1, 2, 3, 4)


def test_counts_are_those_of_a_plain_loop() -> None:
    chance = np.random.default_rng(0)
    metric = SeveralIoU(CLASSES)
    intersection, union = dict.fromkeys(CLASSES, 0), dict.fromkeys(CLASSES, 0)
    pairs = {(there, answered): 0 for there in (False, True) for answered in (False, True)}
    for _ in range(30):
        asked = sorted(chance.choice(CLASSES, 2, replace=False).tolist())
        prediction, label = chance.choice([0, 0, 0, 1], (2, 1)) * chance.integers(0, 3, (2, 12))
        label[:2] = 255
        metric.update(torch.tensor(prediction)[None], torch.tensor(label)[None], asked)
        for position, class_id in enumerate(asked, start=1):
            a, b = prediction[2:] == position, label[2:] == position
            intersection[class_id] += int((a & b).sum())
            union[class_id] += int((a | b).sum())
            pairs[bool(b.any()), bool(a.any())] += 1
    scores = metric.compute()
    assert min(pairs.values()) > 0
    assert metric.intersection.tolist() == list(intersection.values())
    assert scores["class_iou"].tolist() == [intersection[c] / union[c] for c in CLASSES]
    assert scores["miou"] == pytest.approx(np.mean([intersection[c] / union[c] for c in CLASSES]))
    assert scores["empty"] == pairs[False, False] / (pairs[False, False] + pairs[False, True])
    assert scores["found"] == pairs[True, True] / (pairs[True, False] + pairs[True, True])


def episodes(classes: int, absent: bool) -> SeveralEpisodes:
    reader = Shapes("val", 64, 100)
    index = build_index(reader)
    pool = build_pool(index, CLASSES, shot=1, min_pixels=1)
    drawn = EpisodeDataset(reader, pool, 1, 3, EvaluationTransform(SIZE, "exact"), with_label=True)
    return SeveralEpisodes(drawn, images_by_class(index, CLASSES, 1), len(reader), classes, absent)


@pytest.mark.parametrize(
    ("classes", "absent", "verified", "threshold"), [(3, False, False, 0.85), (1, True, True, 0.8155)]
)
def test_answers_are_those_of_a_predictor(classes: int, absent: bool, verified: bool, threshold: float) -> None:
    drawn, count = episodes(classes, absent), 8
    model = segmenter("prior")
    if verified:
        model.verifier = verifier(sum(model.backbone.channels[:2]))
    module = SeveralEvaluation(model, drawn, count, threshold, num_workers=0, limit_gb=1)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.test(module, verbose=False)
    reader = drawn.episodes.reader
    always, abstaining = SeveralIoU(CLASSES), SeveralIoU(CLASSES)
    presences = []
    for i in range(count):
        query, supports = drawn.draw(i)
        found = predictor("prior")
        found.segmenter.verifier = model.verifier
        found.presence_threshold = threshold
        for class_id, [number] in supports.items():
            found.fit(reader.image(number), select(reader.mask(number), class_id), name=f"{class_id}")
        label = drawn[i].label
        for metric, abstain in ((always, False), (abstaining, True)):
            answer = found.predict(reader.image(query), abstain=abstain)
            metric.update(torch.from_numpy(answer.labels.astype(int)), label, list(supports))
        missing = [n for n in supports if not (reader.mask(query) == n).any()]
        presences += [answer.presence[f"{n}"] for n in missing]
    for theirs, mine in ((module.always, always), (module.abstaining, abstaining)):
        for name in ("intersection", "union", "pairs"):
            assert torch.equal(getattr(theirs, name), getattr(mine, name))
    assert not torch.equal(always.pairs, abstaining.pairs)  # some classes were left out
    mine_absent = [one.presence for one in module.answers if not one.present]
    assert mine_absent == pytest.approx(presences, rel=1e-5)


def test_verifiers_are_learnt_with_and_without_a_trainer_and_reuse() -> None:
    drawn, count = episodes(1, absent=True), 24
    module = SeveralEvaluation(segmenter("prior"), drawn, count, None, num_workers=0, limit_gb=1)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.test(module, verbose=False)
    assert len(module.cases) == len(module.objects) == count
    assert sum(case.present for case in module.cases) == count // 2
    one, threshold = choose(module)
    other = learn_verifier(segmenter("prior"), drawn, count, torch.device("cpu"), num_workers=0, limit_gb=0)
    assert one is not None
    assert other is not None
    assert one.weights == other.weights
    assert threshold == one.threshold == other.threshold
    assert len(one.classes) == len(CLASSES)
    module.objects = module.objects[:1]  # too few
    plain, threshold = choose(module)
    absent = [answer.presence for answer in module.answers if not answer.present]
    assert (plain, threshold) == (None, choose_threshold(absent))


def test_what_abstaining_costs_is_that_of_a_plain_loop() -> None:
    chance = np.random.default_rng(3)
    answers = []
    for number in range(400):
        present = number % 2 == 0
        truth = int(chance.integers(50, 100)) * present
        intersection = int(chance.integers(0, 50)) * present
        answers.append(
            Answer(
                number % 3,
                chance.random() + 0.5 * present,
                intersection,
                truth + int(chance.integers(2, 40)),
                truth,
            )
        )

    def miou(cut: float) -> float:
        scores = []
        for class_id in range(3):
            own = [one for one in answers if one.present and one.class_id == class_id]
            kept = [one for one in own if one.presence >= cut]
            union = sum(one.union if one in kept else one.truth for one in own)
            scores.append(sum(one.intersection for one in kept) / union)
        return float(np.mean(scores))

    told = where_present(answers, 0.8)
    assert told["always"] == pytest.approx(miou(0))
    assert told["abstaining"] == pytest.approx(miou(0.8))
    absent = np.array([one.presence for one in answers if not one.present])
    for points, share in told["empty_at_points_lost"].items():
        cuts = [one.presence for one in answers if 100 * (miou(0) - miou(one.presence)) <= int(points)]
        assert share == pytest.approx(max((absent < cut).mean() for cut in cuts))
    assert told["empty_at_points_lost"]["5"] > told["empty_at_points_lost"]["0"] > 0.2


def test_means_of_nothing_are_none() -> None:
    present, absent = Answer(1, 0.9, 5, 10, 8), Answer(1, 0.2, 0, 4, 0)
    told = where_present([present], 0.5)
    assert told == {"always": 0.5, "abstaining": 0.5, "empty_at_points_lost": dict.fromkeys("0125")}
    told = where_present([absent], 0.5)
    assert (told["always"], told["abstaining"]) == (None, None)
    metric = SeveralIoU(CLASSES)
    metric.update(torch.ones(4, 4), torch.ones(4, 4), [2])  # nothing was absent
    scores = metric.compute()
    assert [known(scores[part]) for part in ("miou", "empty", "found")] == [1.0, None, 1.0]


def test_threshold_leaves_the_asked_share_empty() -> None:
    presences = np.random.default_rng(0).random(400).tolist()
    threshold = choose_threshold(presences)
    assert np.mean([presence < threshold for presence in presences]) == pytest.approx(0.95, abs=0.005)
    with pytest.raises(ValueError, match="use more episodes"):
        choose_threshold([])
