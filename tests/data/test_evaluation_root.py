"""`dataset.eval_root`: pictures of another folder, whose classes are counted as in training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from support.own_pictures import NAMES, write

from fss.cli.build import build_datamodule
from fss.configuration import conf_folder
from fss.data.check import __main__ as check


def test_no_class_that_was_trained_on_is_reported_as_novel(tmp_path: Path) -> None:
    train, other = write(tmp_path / "train"), write(tmp_path / "other")
    (other / "classes.txt").write_text("\n".join(NAMES[::-1]))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_folder(), version_base="1.3"):
        roots = [f"dataset.root={train}", f"dataset.eval_root={other}", "dataset.size=16"]
        cfg = compose("train", ["dataset=folder", *roots, "dataset.fold_scheme=[[1,2]]"])
    module = build_datamodule(cfg)
    module.setup("fit")
    assert set(module.evaluated_classes(50).values()) == {"ant", "bee"}
    episodes = module.evaluation
    for i in range(20):
        episode = episodes[i]
        number = int(Path(str(episode.names[0])).stem.split()[1])
        # in the other folder ids are counted from the end: 5 is ant, 4 is bee
        shown = {6 - (number % 5 + 1), 6 - ((number + 1) % 5 + 1)}
        assert int(episode.class_id) in shown


def test_check_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, other = write(tmp_path / "train"), write(tmp_path / "other")
    (other / "classes.txt").write_text("\n".join(NAMES[::-1]))
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_folder(), version_base="1.3"):
        roots = [f"dataset.root={train}", f"dataset.eval_root={other}"]
        check.main.__wrapped__(compose("check", ["dataset=folder", *roots, "pictures=0"]))
    told = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    for class_id, name in enumerate(NAMES, start=1):
        assert [name, str(class_id), str(6 - class_id)] in told
