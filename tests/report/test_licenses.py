"""Notes on licences: every data set and every set of weights that the program offers by name has one."""

from __future__ import annotations

from support import ROOT

from fss.report.licenses import licenses


def notes(dataset: str, backbone: str) -> str:
    return licenses([{"dataset": dataset, "train_dataset": dataset, "backbone": backbone}])


def names(group: str) -> set[str]:
    return {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}


def test_every_data_set_and_backbone_has_a_note() -> None:
    assert not [name for name in names("dataset") if "Nothing is known" in notes(name, "resnet50")]
    of_any_weights = {"timm", "vit"}
    unknown = {name for name in names("backbone") if "Nothing is known" in notes("shapes", name)}
    assert unknown == of_any_weights


def test_weights_tell_what_they_were_trained_on() -> None:
    assert "trained on ImageNet" in notes("shapes", "efficientnet_lite1")
    assert "trained on LVD-142M" in notes("shapes", "dinov2_s")
    assert "They were trained" not in notes("shapes", "vit")
    assert "Nothing is known here" in notes("somebody's", "resnet50")
