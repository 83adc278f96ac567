"""What `make real` runs: jobs whose commands compose, and which are known when they are finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from support import ROOT, made_up

from bench.real import FILTERS, SUPPORTS_OF, Job, jobs, select

LITE = "efficientnet_lite0"


def test_every_job_once() -> None:
    all_jobs = list(jobs())
    assert len(set(all_jobs)) == len(all_jobs)
    assert {job.tuning for job in all_jobs} == {path.stem for path in (ROOT / "conf/tuning").glob("*.yaml")}
    methods = {"pfenet_small", "bam_small", "baseline_small", "cross_attention_small", "match", "prior"}
    assert {job.method for job in all_jobs} == methods
    assert {job.supports for job in all_jobs} == {"mask", "empty", "inverted", "other_class"}
    for job in all_jobs:
        if job.script == "evaluate.py" and job.method.endswith("_small"):  # of a run that is trained before
            run = job._replace(script="train.py", shot=1, supports="mask", classes="novel", refine=None)
            assert all_jobs.index(run) < all_jobs.index(job)


def test_commands_compose(tmp_path: Path) -> None:
    kinds = {
        (job.script, job.method, job.tuning, job.backbone, job.variant, job.supports, job.classes, job.refine): job
        for job in jobs()
        if job.fold == 0
    }
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for job in kinds.values():
            script, *words = job.command(tmp_path, tmp_path / "out")
            cfg = compose(Path(script).stem, words)
            assert cfg.run_dir.startswith(str(tmp_path / "out" / job.variant))
            assert (cfg.method.name, cfg.tuning.name, cfg.fold, cfg.seed) == job[1:5]
            assert cfg.backbone.name == job.backbone
            assert cfg.dataset.eval_classes == job.classes
            assert cfg.dataset.support_annotation == SUPPORTS_OF.get(job.variant, job.supports)
            assert job.refine in (None, cfg.method.head.refine)
            assert (cfg.backbone.weights is None) == (job.variant == "random_backbone")


def test_what_is_finished(tmp_path: Path) -> None:
    job = Job("train.py", "pfenet", "svf", 1, 0)
    assert not job.is_finished(tmp_path)
    for other in ({"fold": 0}, {"seed": 1}, {"tuning": "full"}, {"checkpoint": "best"}):
        told = {"fold": 1, **other}
        made_up.evaluation(tmp_path / "usual", dataset="pascal5i", backbone=LITE, **told)  # type: ignore[arg-type]
        assert not job.is_finished(tmp_path)
    made_up.evaluation(tmp_path / "usual", dataset="pascal5i", fold=1)
    assert not job.is_finished(tmp_path)
    made_up.evaluation(tmp_path / "usual", dataset="pascal5i", backbone=LITE, fold=1)
    assert job.is_finished(tmp_path)
    assert not job._replace(supports="empty").is_finished(tmp_path)
    assert not job._replace(classes="base").is_finished(tmp_path)
    made_up.evaluation(
        tmp_path / "usual", dataset="pascal5i", backbone=LITE, fold=1, changes={"eval_classes": "base"}
    )
    assert job._replace(classes="base").is_finished(tmp_path)
    assert not job._replace(variant="random_backbone").is_finished(tmp_path)
    assert not job._replace(refine=2).is_finished(tmp_path)
    made_up.evaluation(
        tmp_path / "usual", dataset="pascal5i", backbone=LITE, fold=1, changes={"changed": ["refine-2"]}
    )
    assert job._replace(refine=2).is_finished(tmp_path)
    assert not job._replace(refine=0).is_finished(tmp_path)


def test_filters() -> None:
    chosen = select(["tuning=svf,full", "fold=2", "shot=1", "method=pfenet_small", "supports=mask"])
    assert {(job.tuning, job.fold) for job in chosen} == {("svf", 2), ("full", 2)}
    with pytest.raises(ValueError, match=f"folds=1: use {FILTERS[0]}="):
        select(["folds=1"])
    with pytest.raises(ValueError, match="nothing agrees with all of these"):
        select(["method=prior", "tuning=svf"])
