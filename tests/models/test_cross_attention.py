"""Dense cross-attention, against loops over locations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone
from torch import Tensor, nn

from fss.export.export import export_model
from fss.models.backbones import TimmBackbone
from fss.models.card import ModelCard, Part
from fss.models.heads import CrossAttention, Features
from fss.models.heads.cross_attention import MARGIN_SCALE, Level
from fss.models.heads.guided import box_mean, guided_upsampling
from fss.models.model_file import save_model
from fss.models.segmenter import FewShotSegmenter
from fss.resize import resize

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(b: int, k: int | None, h: int = 6, w: int = 4) -> Features:
    lead = (b,) if k is None else (b, k)
    return Features(*(torch.randn(*lead, c, h, w) for c in CHANNELS))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_margins_and_what_is_attended_to_by_loops() -> None:
    torch.manual_seed(0)
    level = Level(5, 3, [2.0, 30.0])
    query, keys, values, mask = torch.randn(2, 5, 4), torch.randn(2, 5, 6), torch.randn(2, 3, 6), torch.rand(2, 6)
    mask[0, 2], mask[1, 3] = 0, 1
    with torch.no_grad():
        margins, attended = level(query, keys, values, mask)
    assert (margins.shape, attended.shape) == ((2, 2, 4), (2, 3, 4))
    for b in range(2):
        covered = [min(max(float(share), 1e-4), 1 - 1e-4) for share in mask[b]]
        odds = sum(covered) / sum(1 - share for share in covered)
        for n in range(4):
            mean = torch.zeros(3)
            for t, temperature in enumerate((2.0, 30.0)):
                alike = [math.exp(temperature * cosine(query[b, :, n], keys[b, :, m])) for m in range(6)]
                inside = sum(a * share for a, share in zip(alike, covered, strict=True))
                outside = sum(a * (1 - share) for a, share in zip(alike, covered, strict=True))
                margin = math.log(inside / outside / odds) / temperature
                assert float(margins[b, t, n]) == pytest.approx(margin, abs=1e-5)
                for m in range(6):
                    mean += alike[m] * covered[m] / inside * values[b, :, m] / 2
            torch.testing.assert_close(attended[b, :, n], mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_a_support_of_nothing_or_of_the_object_alone_decides_nothing(mask: float) -> None:
    head = CrossAttention(CHANNELS, width=4).eval()
    support = head.encode_support(maps(2, 2), torch.full((2, 2, 24, 16), mask))
    query = head.encode_query(maps(2, None))
    _, margin = head._attend(query, support, (6, 4))
    torch.testing.assert_close(margin, torch.zeros_like(margin), atol=1e-5, rtol=0)
    with torch.no_grad():
        assert torch.isfinite(head.decode(query, support, (24, 16)).logits).all()


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0), (0.25, 0.5)])
@pytest.mark.parametrize("shots", [1, 3])
def test_shapes_losses_and_gradients(scales: tuple[float, ...], shots: int) -> None:
    torch.manual_seed(0)
    segmenter = FewShotSegmenter(TinyBackbone(), CrossAttention(CHANNELS, 16, scales))
    masks = torch.zeros(2, shots, 32, 24)
    masks[..., 4:20, 3:15] = 1
    prediction = segmenter(torch.randn(2, 3, 32, 24), torch.randn(2, shots, 3, 32, 24), masks)
    assert prediction.logits.shape == (2, 2, 32, 24)
    assert prediction.prior.shape == (2, 1, 8, 6)
    assert len(prediction.inner) == len(scales) - 1
    losses = segmenter.head.losses(prediction, masks[:, 0].long(), None)
    assert set(losses) == {"main", *(["inner"] if len(scales) > 1 else [])}
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in segmenter.head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_a_finer_scale_looks_at_the_query_with_the_coarser_answer_as_its_mask() -> None:
    torch.manual_seed(0)
    head = CrossAttention(CHANNELS, width=4).eval()
    with (
        torch.no_grad()
    ):  # logits are margins alone: the coarser scale's of the support, the finer one's of itself
        for classify in head.classify:
            for parameter in classify.parameters():
                parameter.zero_()
        head.trust[0], head.trust[1], head.own_trust[0][:] = 0.25, 0.0, 0.25
        masks = torch.zeros(1, 1, 24, 16)
        masks[..., 8:20, 4:12] = 1
        query, support = head.encode_query(maps(1, None)), head.encode_support(maps(1, 1), masks)
        _, margins = head._attend(query, support, (3, 2))
        answer = torch.sigmoid(2 * MARGIN_SCALE * margins.mean(1, keepdim=True))
        assert 0.1 < float(answer.mean()) < 0.9
        mask = resize(answer, (6, 4)).flatten(1)
        own = []
        for level, keys, values in zip(head.levels, query.keys, query.values, strict=True):
            found, _ = level(keys.flatten(2), keys.flatten(2), values.flatten(2), mask)
            own.append(found)
        expected = MARGIN_SCALE * torch.cat(own, 1).mean(1).unflatten(1, (6, 4))
        logits = head.decode(query, support, (6, 4)).logits
    torch.testing.assert_close(logits[:, 1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[:, 0], -expected, rtol=1e-4, atol=1e-4)


def test_answers_follow_the_picture_outside_of_training_alone() -> None:
    torch.manual_seed(0)
    plain, refining = (
        CrossAttention(CHANNELS, width=4, dropout=0.0),
        CrossAttention(CHANNELS, width=4, dropout=0.0, refine=1),
    )
    refining.load_state_dict(plain.state_dict())
    masks, picture = torch.zeros(1, 1, 24, 16), torch.randn(1, 3, 24, 16)
    masks[..., 8:20, 4:12] = 1
    support = plain.encode_support(maps(1, 1), masks)
    features = maps(1, None)._replace(picture=picture)
    with torch.no_grad():
        for head in (plain, refining):
            for module in head.modules():
                module.training = not isinstance(module, nn.Dropout2d)  # which would draw
        queries = [head.encode_query(features) for head in (plain, refining)]
        before, during = (h.decode(q, support, (24, 16)) for h, q in zip((plain, refining), queries, strict=True))
        assert torch.equal(before.logits, during.logits)
        after = refining.eval().decode(queries[1], support, (24, 16)).logits
        grid = plain.eval().decode(queries[0]._replace(picture=None), support, (6, 4)).logits
    margin = guided_upsampling(grid[:, 1:] - grid[:, :1], picture, 1)
    expected = ((before.logits[:, 1:] - before.logits[:, :1]) + box_mean(margin, 2)) / 2
    torch.testing.assert_close(after[:, 1:] - after[:, :1], expected, rtol=1e-4, atol=1e-4)


def test_begins_as_matching() -> None:
    """What is added to the margins is little before training: the answer is theirs."""
    torch.manual_seed(0)
    head = CrossAttention(CHANNELS, width=8, scales=(1.0,)).eval()
    query, support = maps(1, None, 12, 12), maps(1, 1, 12, 12)
    query = Features(query.low, support.mid[:, 0], query.high)
    masks = torch.zeros(1, 1, 12, 12)
    masks[..., 3:8, 2:9] = 1
    with torch.no_grad():
        encoded = head.encode_support(support, masks)
        found = head.decode(head.encode_query(query), encoded, (12, 12)).logits.argmax(1)
    inside = masks[0] == 1
    assert (found[inside] == 1).float().mean() - (found[~inside] == 1).float().mean() > 0.5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"scales": []}, r"method\.head\.scales is \[\]"),
        ({"scales": [1.0, 0.5]}, "coarse to fine"),
        ({"scales": [0.0]}, r"method\.head\.scales"),
        ({"refine": -1}, r"method\.head\.refine is -1"),
        ({"temperatures": [0.0]}, r"method\.head\.temperatures is \[0\.0\]"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CrossAttention(CHANNELS, **settings)


@pytest.mark.slow
@pytest.mark.nightly
def test_graphs_for_any_number_of_supports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: dict[str, Any] = {"name": "test_efficientnet", "low": 1, "mid": 2}
    backbone = TimmBackbone(**network)
    segmenter = FewShotSegmenter(backbone, CrossAttention(list(backbone.channels), width=8, refine=1)).eval()
    card = ModelCard(Part("timm", network), Part("cross_attention", {"width": 8, "refine": 1}), 64, "published", 1)
    save_model(tmp_path / "model.safetensors", segmenter, card)
    exported = export_model(tmp_path / "model.safetensors", tmp_path / "model.onnx", "onnx")
    assert exported.shot is None
    assert exported.agreement.relative < 1e-4
