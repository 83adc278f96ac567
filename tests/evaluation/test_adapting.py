"""Evaluation that tunes S on supports: each episode on its own, in any order, stopped and resumed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from support.numbered import Numbered
from support.tiny import CHANNELS, TinyBackbone

from fss.data.datamodule import FewShotDataModule
from fss.data.episodes import EpisodeDataset
from fss.data.plan import PictureSteps, PlannedEpisode, plan_episodes, plan_steps, with_seed
from fss.data.preprocessing import EvaluationTransform
from fss.evaluation import adapting
from fss.evaluation.adapting import AdaptingEvaluator, views_seed
from fss.evaluation.engine import Evaluated, answer_episodes, pictures_of
from fss.evaluation.reuse import Reuse
from fss.metrics import episode_integers
from fss.models.adaptation import Adaptation, SupportTuning
from fss.models.heads import BAM, PriorMask
from fss.models.segmenter import FewShotSegmenter

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS, COUNT = (321, 5), 4
QUICK = Adaptation(steps=2, every=1, rate=0.1, shots=1, views=True)
NEVER = Adaptation(steps=1, every=1, rate=1e-12, shots=1, views=True)  # moves nothing, so that nothing is kept


def episodes(shot: int) -> EpisodeDataset:
    settings: dict[str, Any] = {
        "fold": 0,
        "fold_scheme": "contiguous",
        "shot": shot,
        "seed": 0,
        "min_pixels": 1,
        "num_workers": 0,
    }
    transform = EvaluationTransform(24, "exact")
    made = FewShotDataModule(Numbered, Numbered, transform, transform, **settings)
    made.setup("test")
    return made.evaluation


def segmenter(kind: str = "prior") -> FewShotSegmenter:
    torch.manual_seed(2)
    head = PriorMask(CHANNELS, 0.5) if kind == "prior" else BAM(CHANNELS, 3, 1, width=8, dropout=0, base_width=8)
    return FewShotSegmenter(TinyBackbone(), head).eval()


def answered(made: FewShotSegmenter, of: EpisodeDataset, adaptation: Adaptation | None, folder: Path) -> Evaluated:
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    return answer_episodes(trainer, made, of, SEEDS, COUNT, folder, Reuse(1.0), adaptation=adaptation)


@torch.inference_mode()
def one_by_one(made: FewShotSegmenter, of: EpisodeDataset) -> dict[tuple[int, int], tuple[int, ...]]:
    """Integers and steps of every episode, each with a segmenter that no other episode has seen."""
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    normalize = made.backbone.normalize
    for seed in SEEDS:
        for i in range(COUNT):
            episode = with_seed(of, seed)[i]
            own_class = episode.own_class[None]
            tuning = SupportTuning(made, QUICK)
            steps = tuning.fit(episode.support, episode.support_mask, own_class, views_seed(seed, i)).steps
            used = tuning.segmenter if steps else made
            shown = normalize(episode.query[None]), normalize(episode.support[None]), episode.support_mask[None]
            logits = used(*shown, own_class).logits[0]
            assert isinstance(episode.label, torch.Tensor)
            found[seed, i] = (*episode_integers(logits, episode.label, of.geometry), steps)
    return found


@pytest.mark.parametrize(("kind", "shot"), [("prior", 1), ("prior", 3), ("bam", 1)])
def test_every_episode_is_its_own(kind: str, shot: int) -> None:
    made, of = segmenter(kind), episodes(shot)
    expected = one_by_one(made, of)
    assert {steps > 0 for *_, steps in expected.values()} == {True, False} or kind == "bam"
    own_class = {c: i for i, c in enumerate(of.base_classes)}
    planned: list[PlannedEpisode] = plan_episodes(of, SEEDS, COUNT)
    for order in (planned, random.Random(0).sample(planned, len(planned))):
        steps = plan_steps(order)
        blocks = [steps[:3], steps[3:]]
        pictures = PictureSteps(of, blocks)
        evaluator = AdaptingEvaluator(made, pictures, blocks, own_class, QUICK)
        start = {name: value.clone() for name, value in evaluator.tuning.segmenter.state_dict().items()}
        found = {}
        with torch.inference_mode():
            for block in range(len(blocks)):
                for episode, prediction, label, number in evaluator.answer(block, pictures[block]):
                    integers = episode_integers(prediction.logits[0], label, of.geometry)
                    found[episode.seed, episode.id] = (*integers, number)
                    now = evaluator.tuning.segmenter.state_dict()
                    assert all(torch.equal(value, start[name]) for name, value in now.items())
        assert found == expected
        assert evaluator.cost.episodes == len(planned)


def test_what_is_never_kept_is_the_usual_evaluation(tmp_path: Path) -> None:
    made, of = segmenter(), episodes(2)
    usual = answered(made, of, None, tmp_path / "usual")
    never = answered(made, of, NEVER, tmp_path / "never")
    assert never.episodes == usual.episodes
    assert never.steps == [0] * len(SEEDS) * COUNT
    assert usual.cost is None


def test_a_stopped_one_goes_on_and_is_no_other_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, of = segmenter(), episodes(1)
    usual = answered(made, of, None, tmp_path)
    whole = answered(made, of, QUICK, tmp_path)  # none of the usual one's episodes is taken
    assert whole.episodes != usual.episodes
    assert len(set(whole.steps)) > 1
    asked = adapting.segmenter_for
    calls = 0

    def stopped(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyError("stop")
        return asked(*given)

    folder = tmp_path / "stopped"
    monkeypatch.setattr(adapting, "segmenter_for", stopped)
    with pytest.raises(KeyError):
        answered(made, of, QUICK, folder)
    resumed = answered(made, of, QUICK, folder)
    assert calls == 4 + len(SEEDS) * COUNT - 3
    assert (resumed.episodes, resumed.steps) == (whole.episodes, whole.steps)
    assert answered(made, of, None, folder).episodes == usual.episodes


def test_pictures_are_of_the_tuned_segmenter(tmp_path: Path) -> None:
    made, of = segmenter(), episodes(1)
    done = answered(made, of, QUICK, tmp_path)
    steps = dict(zip([(e.eval_seed, e.id) for e in done.episodes], done.steps, strict=True))
    trainer = lightning.Trainer(accelerator="cpu", logger=False)
    both = [pictures_of(trainer, made, of, 321, range(COUNT), way) for way in (None, QUICK)]
    for i, (usual, tuned) in enumerate(zip(*both, strict=True)):
        assert usual.prediction is not None
        assert tuned.prediction is not None
        if steps[321, i] == 0:
            assert torch.equal(usual.prediction, tuned.prediction)
    assert any(usual.iou != tuned.iou for usual, tuned in zip(*both, strict=True))


def test_a_head_of_a_fixed_number_of_supports_is_refused_before_work_starts(tmp_path: Path) -> None:
    made = FewShotSegmenter(TinyBackbone(), BAM(CHANNELS, 3, 2, width=8, base_width=8)).eval()
    with pytest.raises(ValueError, match="a BAM trained with shot=2 got 1 supports"):
        answered(made, episodes(2), QUICK, tmp_path)
    assert not list(tmp_path.iterdir())
