"""Evaluation against a plain loop, in any order, with any memory, interrupted, and on several processes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import lightning
import numpy as np
import pytest
import torch
from support import ROOT, warm
from support.tiny import TinyBackbone
from torch import Tensor
from torchmetrics import JaccardIndex

from fss.data.draws import OtherClass, Shuffled
from fss.data.episodes import EpisodeDataset
from fss.data.index import build_index, build_pool
from fss.data.plan import PictureSteps, PlannedEpisode, plan_episodes, plan_steps, with_seed
from fss.data.preprocessing import EvaluationTransform
from fss.evaluation import memory as memory_module
from fss.evaluation import reuse
from fss.evaluation.engine import Evaluation, answer_episodes, finish, pictures_of
from fss.evaluation.journal import Entry, Journal
from fss.evaluation.memory import Memory, Part
from fss.evaluation.results import summarize
from fss.evaluation.reuse import Reuse, ReusingEvaluator
from fss.metrics import episode_integers, predict_at_original_size
from fss.models.backbones import ResNetBackbone, TimmBackbone
from fss.models.encodings import join
from fss.models.heads import BAM, Baseline, Features, Head, PFENet, Prediction, PriorMask
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS, COUNT = (321, 5), 14
PLENTY = Reuse(limit_gb=1.0)
Integers = dict[tuple[int, int], tuple[int, int, int, int]]  # by seed and id


class Discs:
    """Pictures of several sizes with up to two ellipses of three classes, and some ignored pixels."""

    classes = ("red", "green", "blue")

    def __len__(self) -> int:
        return 14

    def name(self, index: int) -> str:
        return f"discs/{index}.png"

    def image(self, index: int) -> np.ndarray:
        chance = np.random.default_rng(index)
        mask = self.mask(index)
        image = chance.integers(0, 120, (*mask.shape, 3), dtype=np.uint8)
        for class_id in (1, 2, 3):
            image[mask == class_id, class_id - 1] += 120
        return image

    def mask(self, index: int) -> np.ndarray:
        chance = np.random.default_rng([index, 1])
        height, width = chance.integers(40, 90, 2)
        mask = np.zeros((height, width), np.uint8)
        for class_id in (1 + index % 3, 1 + chance.integers(3)):
            center = chance.integers(16, (width - 16, height - 16)).tolist()
            axes = chance.integers(8, 16, 2).tolist()
            cv2.ellipse(mask, center, axes, 30, 0, 360, int(class_id), cv2.FILLED)
        mask[: chance.integers(5), :] = 255
        return mask


class InFiles(Discs):
    """Discs of which a file says how many rows of their masks are ignored."""

    def __init__(self, file: Path) -> None:
        self.file = self.cache = file

    def mask(self, index: int) -> np.ndarray:
        mask = super().mask(index)
        mask[: int(self.file.read_text())] = 255
        return mask

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.mask(index).shape
        return height, width

    def pictures(self) -> list[Path]:
        return []

    def files(self) -> list[Path]:
        return [self.file]


def dataset(shot: int = 1, reader: Discs | None = None, **settings: Any) -> EpisodeDataset:
    reader = reader or Discs()
    pool = build_pool(build_index(reader), (1, 2, 3), shot, min_pixels=1)
    return EpisodeDataset(reader, pool, shot, 0, EvaluationTransform(48), with_label=True, **settings)


def bam(shot: int) -> Callable[[tuple[int, int, int]], Head]:
    return lambda channels: BAM(channels, 5, shot, width=8, base_width=8)


class PlainParts(PriorMask):
    """Hands on what a newcomer might: plain tuples, dicts, None and words."""

    def encode_support(self, features: Features, masks: Tensor) -> Any:
        return super().encode_support(features, masks), None, {"kind": "prior"}

    def encode_query(self, features: Features) -> Any:
        return {"maps": [super().encode_query(features)], "none": None}

    def decode(
        self, query: Any, support: Any, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        (maps,), (supports, nothing, words) = query["maps"], support
        assert (query["none"], nothing, words) == (None, None, {"kind": "prior"})
        return super().decode(maps, supports, size, own_class)


HEADS: dict[str, tuple[int, Callable[[tuple[int, int, int]], Head]]] = {
    "pfenet": (1, lambda channels: PFENet(channels, width=8, pyramid=(1.0, 0.5))),
    "pfenet, 3 shots": (3, lambda channels: PFENet(channels, width=8, pyramid=(1.0, 0.5))),
    "baseline, 2 shots": (2, lambda channels: Baseline(channels, width=8)),
    "bam": (1, bam(1)),
    "bam, 3 shots": (3, bam(3)),
    "prior, 2 shots": (2, lambda channels: PriorMask(channels, threshold=0.5)),
    "plain parts, 2 shots": (2, lambda channels: PlainParts(channels, threshold=0.5)),
}


def segmenter(
    head: Callable[[tuple[int, int, int]], Head], shot: int = 1, backbone: Any = None
) -> FewShotSegmenter:
    """One that answers neither nothing nor everything, with a tuned backbone."""
    backbone = backbone or TinyBackbone()
    made = FewShotSegmenter(backbone, head(backbone.channels))
    if isinstance(backbone, TinyBackbone):
        made.tune(svf)
        with torch.no_grad():
            for name, parameter in made.backbone.named_parameters():
                if name.endswith(".S"):
                    parameter.mul_(1 + torch.rand_like(parameter))
    made.eval()
    if not isinstance(made.head, PriorMask):
        with torch.no_grad():
            if isinstance(made.head, BAM):  # both of what is weighed has its say
                made.head.gram_merge.weight[:, 1] = 0.1
                made.head.cls_merge.weight[:, 1] = 0.1
            _, _, prediction = next(plain_loop(made, dataset(shot)))
            meta = prediction.inner[0] if isinstance(made.head, BAM) else prediction.logits
            last = made.head.get_submodule("cls.3" if isinstance(made.head, PFENet) else "cls_meta.3")
            weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
            difference = meta[:, 1] - meta[:, 0]
            scale = 3 / difference.std()
            weight.mul_(scale)
            bias.mul_(scale)
            bias[0] += scale * difference.median()
    return made


@torch.inference_mode()
def plain_loop(made: FewShotSegmenter, episodes: EpisodeDataset) -> Iterator[tuple[int, Any, Prediction]]:
    """Every picture of every episode encoded anew, one by one: seed, episode, answer."""
    normalize = made.backbone.normalize
    for seed in SEEDS:
        drawn = with_seed(episodes, seed)
        for i in range(COUNT):
            episode = drawn[i]
            query = made.encode_query(normalize(episode.query)[None])
            supports = [
                made.encode_support(normalize(image)[None, None], mask[None, None])
                for image, mask in zip(episode.support, episode.support_mask, strict=True)
            ]
            # in the layout that the program gives shots: another one would move matrix products by rounding
            together = join(supports, dim=1)
            size = (episode.query.shape[-2], episode.query.shape[-1])
            yield seed, episode, made.decode(query, together, size, episode.own_class[None])


def plain_integers(made: FewShotSegmenter, episodes: EpisodeDataset) -> Integers:
    return {
        (seed, int(episode.id)): episode_integers(prediction.logits[0], episode.label)
        for seed, episode, prediction in plain_loop(made, episodes)
    }


@torch.inference_mode()
def reusing(
    made: FewShotSegmenter,
    episodes: EpisodeDataset,
    limit_gb: float,
    batch: int = 1,
    planned: list[PlannedEpisode] | None = None,
) -> tuple[Integers, ReusingEvaluator]:
    steps = plan_steps(plan_episodes(episodes, SEEDS, COUNT) if planned is None else planned)
    blocks = [steps[i : i + batch] for i in range(0, len(steps), batch)]
    pictures = PictureSteps(episodes, blocks)
    own_class = {c: i for i, c in enumerate(episodes.base_classes)}
    evaluator = ReusingEvaluator(made, pictures, blocks, own_class, limit_gb, batch)
    integers = {
        (outcome.episode.seed, outcome.episode.id): episode_integers(outcome.prediction.logits[0], outcome.label)
        for block in range(len(blocks))
        for outcome in evaluator.answer(block, pictures[block])
    }
    return integers, evaluator


def trainer() -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, devices=1
    )


@pytest.mark.parametrize("name", HEADS)
def test_reuse_gives_the_integers_of_the_plain_loop(name: str) -> None:
    shot, head = HEADS[name]
    episodes = dataset(shot, base_classes=[2, 3])
    made = segmenter(head, shot)
    expected = plain_integers(made, episodes)
    ious = [intersection / union for intersection, union, *_ in expected.values()]
    assert 0.01 < np.mean(ious) < 0.95, "an answer of nothing or everything would test nothing"
    assert len(set(ious)) > COUNT / 2
    shuffled = random.Random(0).sample(plan_episodes(episodes, SEEDS, COUNT), len(SEEDS) * COUNT)
    for limit_gb, planned in ((1.0, None), (0.0, None), (2e-4, None), (2e-4, shuffled), (1.0, shuffled)):
        integers, evaluator = reusing(made, episodes, limit_gb, planned=planned)
        assert integers == expected
        made_anew = evaluator.encoded["support"]
        if limit_gb == 0:
            assert made_anew == len(SEEDS) * COUNT * shot
        if limit_gb == 1:
            drawn = plan_episodes(episodes, SEEDS, COUNT)
            assert made_anew == len({(e.class_id, s) for e in drawn for s in e.supports})
            assert evaluator.encoded["query"] == len({e.query for e in drawn})
            assert evaluator.encoded["lower"] == len({p for e in drawn for p in (e.query, *e.supports)})
            assert evaluator._memory.bytes == 0, "nothing is kept that has no further use"


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: ResNetBackbone(stem="torchvision"), marks=pytest.mark.nightly, id="resnet"),
        pytest.param(lambda: TimmBackbone("resnet10t"), id="timm"),
    ],
)
def test_real_backbones(build: Callable[[], Any]) -> None:
    made = segmenter(HEADS["pfenet"][1], 2, build())
    episodes = dataset(2)
    expected = plain_integers(made, episodes)
    assert reusing(made, episodes, 1.0)[0] == expected
    assert reusing(made, episodes, 2e-3)[0] == expected


@pytest.mark.parametrize("batch", [2, 5])
def test_larger_batches_move_results_by_rounding_alone(batch: int) -> None:
    shot, head = HEADS["bam, 3 shots"]
    episodes = dataset(shot, base_classes=[2, 3])
    made = segmenter(head, shot)
    expected, _ = reusing(made, episodes, 1.0)
    for limit_gb in (0.0, 1.0):
        integers, evaluator = reusing(made, episodes, limit_gb, batch)
        assert integers.keys() == expected.keys()
        ious = [np.mean([i / max(u, 1) for i, u, *_ in some.values()]) for some in (integers, expected)]
        assert abs(ious[0] - ious[1]) < 1e-4
        if limit_gb:
            drawn = plan_episodes(episodes, SEEDS, COUNT)
            assert evaluator.encoded["support"] == len({(e.class_id, s) for e in drawn for s in e.supports})


@pytest.mark.parametrize("annotation", ["box", "empty", "inverted", "other_class"])
def test_other_supports_than_masks(annotation: str) -> None:
    shot, head = HEADS["pfenet, 3 shots"]
    draws = partial(OtherClass, Shuffled) if annotation == "other_class" else Shuffled
    episodes = dataset(shot, support_annotation=annotation, draws=draws)
    made = segmenter(head, shot)
    expected = plain_integers(made, episodes)
    assert reusing(made, episodes, 1.0)[0] == expected
    assert expected != plain_integers(made, dataset(shot))


def test_numbers_by_the_jaccard_index(tmp_path: Path) -> None:
    shot, head = HEADS["baseline, 2 shots"]
    episodes = dataset(shot)
    made = segmenter(head, shot)
    summary = summarize(answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path, PLENTY).episodes)
    merged = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path, PLENTY).segmenter
    indices: dict[tuple[int, int], Any] = {}
    both = {seed: JaccardIndex("multiclass", num_classes=2, average="none", ignore_index=255) for seed in SEEDS}
    for seed, episode, prediction in plain_loop(merged, episodes):
        answer = predict_at_original_size(prediction.logits[0], *episode.label.shape)
        index = indices.setdefault(
            (seed, int(episode.class_id)),
            JaccardIndex("multiclass", num_classes=2, average="none", ignore_index=255),
        )
        for some in (index, both[seed]):
            some.update(answer, episode.label.long())
    for scores in summary["seeds"]:
        seed, ious = scores["eval_seed"], []
        for own in scores["classes"].values():
            ious.append(float(indices[seed, own["id"]].compute()[1]))
            assert own["iou"] == pytest.approx(ious[-1], abs=1e-6)
        assert scores["miou"] == pytest.approx(np.mean(ious), abs=1e-6)
        assert scores["fb_iou"] == pytest.approx(float(both[seed].compute().mean()), abs=1e-6)


def test_evaluation_goes_on_from_finished_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot, head = HEADS["pfenet"]
    episodes, made = dataset(shot), segmenter(head, shot)
    whole = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path / "whole", PLENTY)

    answer = reuse.ReusingEvaluator._decode
    answered: list[PlannedEpisode] = []
    limit = 9

    def stopped(self: ReusingEvaluator, *args: Any) -> Any:
        if len(answered) == limit:
            raise KeyError("stop")
        answered.append(args[0])
        return answer(self, *args)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(reuse.ReusingEvaluator, "_decode", stopped)
        with pytest.raises(KeyError):
            answer_episodes(trainer(), made, episodes, SEEDS, COUNT, folder, PLENTY)
    [file] = folder.iterdir()
    assert len(file.read_text().splitlines()) == 1 + 9
    with file.open("a") as more:
        more.write("321 3 17")  # as if it was killed while it wrote

    answered.clear()
    limit = len(SEEDS) * COUNT
    monkeypatch.setattr(reuse.ReusingEvaluator, "_decode", stopped)
    resumed = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, folder, PLENTY)
    assert len(answered) == len(SEEDS) * COUNT - 9
    assert resumed.episodes == whole.episodes
    assert resumed.seconds > 0
    assert len(file.read_text().splitlines()) == 1 + len(SEEDS) * COUNT
    finish(folder)
    assert not list(folder.iterdir())


def test_ctrl_c_between_an_episode_and_its_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is told to be finished is what the journal keeps."""
    shot, head = HEADS["pfenet"]
    note = Evaluation._note
    noted: list[Entry] = []

    def interrupted(self: Evaluation, entry: Entry) -> None:
        if len(noted) == 9:
            raise KeyboardInterrupt
        noted.append(entry)
        note(self, entry)

    monkeypatch.setattr(Evaluation, "_note", interrupted)
    with pytest.raises(SystemExit) as ended:
        answer_episodes(trainer(), segmenter(head, shot), dataset(shot), SEEDS, COUNT, tmp_path, PLENTY)
    assert ended.value.code == 130
    [file] = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 1 + 10
    assert f"interrupted after 10 of {len(SEEDS) * COUNT} episodes" in caplog.text


@pytest.mark.parametrize("change", ["weights", "annotation", "threshold", "file"])
def test_finished_episodes_of_another_evaluation_are_not_used(
    change: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, head = HEADS["prior, 2 shots"]
    rows = tmp_path_factory.mktemp("data") / "rows.txt"
    rows.write_text("6")
    episodes, made = dataset(2, InFiles(rows) if change == "file" else None), segmenter(head, 2)
    first = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path, PLENTY)
    if change == "weights":
        with torch.no_grad():
            next(made.backbone.get_submodule("layer3").parameters()).mul_(-1)
    elif change == "annotation":
        episodes = dataset(2, support_annotation="box")
    elif change == "file":
        rows.write_text("20")  # the same pictures are drawn: their classes do not change
    else:
        made.head = PriorMask(made.backbone.channels, 0.8)
    second = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path, PLENTY)
    fresh = answer_episodes(trainer(), made, episodes, SEEDS, COUNT, tmp_path / "fresh", PLENTY)
    assert second.episodes == fresh.episodes != first.episodes


def test_segmenter_is_left_as_it_is(tmp_path: Path) -> None:
    made = segmenter(HEADS["pfenet"][1])
    before = {name: value.clone() for name, value in made.state_dict().items()}
    done = answer_episodes(trainer(), made, dataset(), SEEDS, COUNT, tmp_path, PLENTY)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert any(name.endswith(".S") for name in before)
    assert not any(name.endswith(".S") for name in done.segmenter.state_dict())


def test_bam_of_another_shot_is_refused_before_work_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a BAM trained with shot=1 got 3 supports"):
        answer_episodes(trainer(), segmenter(bam(1)), dataset(3), SEEDS, COUNT, tmp_path, PLENTY)


@pytest.mark.parametrize(
    ("seeds", "count", "setting", "message"),
    [
        ((1, 1), 5, PLENTY, "different seeds"),
        ((), 5, PLENTY, "different seeds"),
        ((1,), 0, PLENTY, "at least 1 episode"),
        ((1,), 5, Reuse(-1.0), "reuse.limit_gb=-1"),
        ((1,), 5, Reuse(1.0, 0), "reuse.batch=0"),
    ],
)
def test_bad_settings(seeds: tuple[int, ...], count: int, setting: Reuse, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        answer_episodes(trainer(), segmenter(HEADS["pfenet"][1]), dataset(), seeds, count, tmp_path, setting)


def test_pictures_of_episodes() -> None:
    made, episodes = segmenter(HEADS["pfenet, 3 shots"][1], 3), dataset(3)
    pictures = pictures_of(trainer(), made, episodes, seed=5, ids=range(3))
    assert len(pictures) == 3
    drawn = with_seed(episodes, 5)
    for i, picture in enumerate(pictures):
        assert torch.equal(picture.query, drawn[i].query)
        assert picture.title == Discs.classes[int(drawn[i].class_id) - 1]
        assert picture.prediction is not None
        assert picture.prediction.shape == (48, 48)


# Plans


@pytest.mark.parametrize("world", [1, 2, 3, 40])
def test_processes_share_episodes_without_remainder(world: int) -> None:
    planned = plan_episodes(dataset(2), SEEDS, COUNT)
    shares = [plan_steps(planned, rank, world) for rank in range(world)]
    together = [episode for share in shares for step in share for episode in step]
    assert together == planned
    assert {(e.seed, e.id) for e in together} == {(s, i) for s in SEEDS for i in range(COUNT)}
    largest_step = max(len(step) for share in shares for step in share)
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 2 * largest_step


def test_plan_is_what_the_data_set_draws() -> None:
    episodes = dataset(2)
    for episode in plan_episodes(episodes, SEEDS, COUNT):
        item = with_seed(episodes, episode.seed)[episode.id]
        names = [episodes.reader.name(number) for number in (episode.query, *episode.supports)]
        assert (int(item.class_id), item.names) == (episode.class_id, names)


def test_each_picture_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, read = dataset(2), Mock(side_effect=Discs().image)
    monkeypatch.setattr(episodes.reader, "image", read)
    reusing(segmenter(HEADS["prior, 2 shots"][1]), episodes, 1.0)
    numbers = [call.args[0] for call in read.call_args_list]
    assert len(numbers) == len(set(numbers)) > 5


# Memory


def kept(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.uint8)


def test_what_is_next_used_latest_goes() -> None:
    soon, later, last = (Part("query", number) for number in range(3))
    memory = Memory({soon: [0, 1], later: [0, 2, 4], last: [0, 3]}, 20, torch.device("cpu"))
    for part in (soon, later, last):
        memory.put(part, kept(10))
        assert memory.bytes <= 20
    assert soon in memory
    assert later in memory
    assert last not in memory
    memory.advance()
    memory.advance()
    assert soon not in memory, "it has no further use"
    memory.put(last, kept(10))
    assert last in memory
    memory.put(Part("query", 9), kept(1))
    assert memory.bytes == 20, "what will not be used is not kept"


def test_from_the_device_to_the_host_and_from_there_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    move = Mock(side_effect=lambda value, device: value)
    monkeypatch.setattr(memory_module, "_moved", move)
    parts = [Part("query", number) for number in range(3)]
    memory = Memory({part: [0, 1 + part.number] for part in parts}, 10, torch.device("meta"))
    for part in parts:
        memory.put(part, kept(10))
    # the device holds the first, the host the second
    assert [part in memory for part in parts] == [True, True, False]
    assert [call.args[1].type for call in move.call_args_list] == ["cpu", "cpu"]
    assert memory.get(parts[1]) is not None
    assert move.call_args.args[1].type == "meta"
    picture = Part("picture", 0)
    memory = Memory({picture: [1]}, 10, torch.device("meta"))
    memory.put(picture, kept(10))
    move.reset_mock()
    assert memory.get(picture) is not None
    move.assert_not_called()  # pictures wait on the host


# Journal


def test_journal_of_several_processes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "key")
    entries = [Entry(321, i, 1, 2, 3, 4, 5) for i in range(4)]
    for process in (0, 1):
        writing = Journal(tmp_path, "key").open(process)
        for entry in entries[process::2]:
            writing.add(entry)
        writing.close()
    assert sorted(journal.read()) == entries
    again = Journal(tmp_path, "key").open(0)
    again.add(Entry(321, 9, 1, 2, 3, 4, 5))
    again.close()
    assert len(journal.read()) == 5
    assert Journal(tmp_path, "another").read() == []
    Journal(tmp_path, "another").open(0).close()
    assert sorted(journal.read()) == entries[1::2], "another evaluation has taken the first one's place"
    journal.remove()
    assert not list(tmp_path.iterdir())


# Processes


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_killed_and_started_again_are_as_one() -> None:
    done = warm.run("-m", "checks.interrupted", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["killed"] == [-9, -9]
    assert result["noted"] == 8
    assert not result["written before its end"]
    assert result["files"] == ["episodes.csv", "metrics.csv", "metrics.json"]
    assert result["miou"] > 0
    assert result["two as one"]
    assert result["resumed as one"]
