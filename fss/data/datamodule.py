"""Lightning data module with the episodes of training and of evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import lightning
import torch
from torch.utils.data import DataLoader

from fss.data.cross_domain import unseen_classes
from fss.data.draws import Drawing, OtherClass, draws_of
from fss.data.episodes import Episode, EpisodeDataset, Transform, collate
from fss.data.folds import FoldScheme, check_base, fold_classes
from fss.data.generalized_episodes import GeneralizedEpisodes, generalized_pool
from fss.data.index import Index, QueryClasses, build_index, build_pool, images_by_class
from fss.data.lists import facts, in_order
from fss.data.loading import training_batches, training_loader
from fss.data.picture_cache import keeper
from fss.data.plan import Picture, own_copy, plan_episodes
from fss.data.readers.reader import Reader, checked_reader
from fss.data.several_episodes import SeveralEpisodes
from fss.data.share import Share
from fss.data.support_masks import OTHER_CLASS, SupportAnnotation
from fss.geometry import Geometry

logger = logging.getLogger(__name__)

Absent = Literal["zero", "leave_out"]


class FewShotDataModule(lightning.LightningDataModule):
    """Episodes of base classes for training and of novel classes for evaluation.

    Args:
        train_reader: Creates the reader of training pictures; called when training starts.
        eval_reader: Creates the reader of evaluation pictures.
        train_transform: Random augmentation.
        eval_transform: Deterministic preprocessing.
        fold: Fold number, 0 to 3.
        fold_scheme: See `fold_classes`.
        shot: Supports per episode (K).
        seed: Seed of the training episodes.
        batch_size: Training episodes per step, over all processes.
        eval_batch_size: Pictures that a validation during training encodes at once.
        train_episodes: Training episodes per epoch; None uses every training picture once as query.
        val_episodes: Evaluation episodes at each validation during training.
        test_episodes: Evaluation episodes after training, in the generalised setting.
        eval_seed: Seed of the evaluation episodes (321 as published).
        min_pixels: Minimum number of pixels for a class to count as present in a picture (2048 as published).
        query_classes: Classes that a query can be paired with; see `build_pool`.
        exclude_novel: Drop training pictures that contain any pixel of a novel class; if False, these pixels are
            background in training.
        draw: How evaluation episodes are drawn: "published" replays the episodes of the published programs
            (`Replayed`), "drawn" shuffles the queries (`Shuffled`), "class_first" draws the class before the query
            (`ClassFirst`). Training episodes are always shuffled.
        draw_workers: Number of loader processes to replay; see `draws_of`.
        absent: Whether an evaluation class without episodes counts as 0 ("zero") or is left out of the means
            ("leave_out").
        eval_list: File that lists the evaluation pictures in order; None uses the reader's order.
        eval_classes: "novel", or "base" to choose settings without looking at novel classes.
        seen_classes: For a model trained on another data set, the names of its base classes. Evaluation then uses
            all classes except these, whatever the fold.
        with_base_masks: Add the labels of base classes to training episodes, for a base learner.
        support_annotation: what a support's mask shows; see `support_mask`.
        setting: "standard", "several" and "absent" (see `several_episodes`), or "generalized" to evaluate on all
            pictures with labels that include base classes.
            With published draws, supports may then show the class at any size, as published.
        num_workers: Loader processes; 0 loads in the main process.
        cache_gb: GiB of decoded pictures and masks to keep in memory, in each process; 0 keeps none.

    Attributes:
        left_out: Names of the evaluation classes with too few pictures; available after `setup`.
        evaluated: Ids and names of all evaluation classes, ascending; available after `setup`.
    """

    def __init__(
        self,
        train_reader: Callable[[], Reader],
        eval_reader: Callable[[], Reader],
        train_transform: Transform,
        eval_transform: Transform,
        fold: int,
        fold_scheme: FoldScheme,
        shot: int,
        seed: int,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        train_episodes: int | None = None,
        val_episodes: int = 1000,
        test_episodes: int = 1000,
        eval_seed: int = 321,
        min_pixels: int = 2048,
        query_classes: QueryClasses = "eligible",
        exclude_novel: bool = True,
        draw: Drawing = "drawn",
        draw_workers: int | None = None,
        absent: Absent = "leave_out",
        eval_list: str | None = None,
        eval_classes: Literal["novel", "base"] = "novel",
        seen_classes: Sequence[str] | None = None,
        with_base_masks: bool = False,
        support_annotation: SupportAnnotation = "mask",
        setting: Literal["standard", "generalized", "several", "absent"] = "standard",
        num_workers: int = 2,
        cache_gb: float = 0.0,
    ) -> None:
        super().__init__()
        if shot < 1:
            raise ValueError(f"shot={shot}: must be at least 1")
        if support_annotation not in get_args(SupportAnnotation):
            allowed = ", ".join(get_args(SupportAnnotation))
            raise ValueError(f"dataset.support_annotation={support_annotation!r}: must be one of {allowed}")
        if setting not in ("standard", "generalized", "several", "absent"):
            raise ValueError(f"setting={setting!r}: must be standard, generalized, several or absent")
        if support_annotation == OTHER_CLASS and setting != "standard":
            raise ValueError(f"dataset.support_annotation=other_class has no meaning with setting={setting}")
        if setting == "generalized" and draw == "class_first":
            raise ValueError(
                "setting=generalized takes every picture as a query, so the class cannot be drawn first: take "
                "protocol.draw=published or drawn"
            )
        if absent not in get_args(Absent):
            raise ValueError(f"protocol.absent={absent!r}: must be 'zero' or 'leave_out'")
        if query_classes not in get_args(QueryClasses):
            raise ValueError(f"dataset.query_classes={query_classes!r}: must be 'any' or 'eligible'")
        if eval_classes not in ("novel", "base"):
            raise ValueError(f"dataset.eval_classes={eval_classes!r}: must be 'novel' or 'base'")
        for name, value in {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "dataset.train_episodes": 1 if train_episodes is None else train_episodes,
            "dataset.val_episodes": val_episodes,
            "episodes": test_episodes,
        }.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self.train_reader, self.eval_reader = train_reader, eval_reader
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self.fold, self.fold_scheme, self.shot, self.seed = fold, fold_scheme, shot, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.train_episodes, self.val_episodes, self.test_episodes = train_episodes, val_episodes, test_episodes
        self.eval_seed, self.min_pixels, self.exclude_novel = eval_seed, min_pixels, exclude_novel
        self.query_classes, self.eval_list = query_classes, eval_list
        self.draw, self.draws, self.absent = draw, draws_of(draw, draw_workers), absent
        self.eval_classes, self.seen_classes, self.num_workers = eval_classes, seen_classes, num_workers
        self.with_base_masks, self.support_annotation = with_base_masks, support_annotation
        if support_annotation == OTHER_CLASS:
            self.draws = partial(OtherClass, self.draws)
        self.setting = setting
        self._keep = keeper(cache_gb)
        self._told: set[int] = set()  # episode counts for which missing classes were reported
        self._train: EpisodeDataset | None = None
        self._eval: EpisodeDataset | None = None
        self._validation: Share | None = None
        self._index: Index | None = None  # of the evaluation pictures

    def setup(self, stage: str) -> None:
        """Scans all masks and finds the possible episodes, so that errors occur before training starts."""
        if self._eval is None:
            self._eval = self._eval_dataset()
        if stage == "fit" and self._train is None:
            self._train = self._train_dataset()

    def _train_dataset(self) -> EpisodeDataset:
        if self.support_annotation == OTHER_CLASS:
            raise ValueError("dataset.support_annotation=other_class: for evaluate.py alone, train on masks")
        reader = checked_reader(self.train_reader())
        novel, base = classes = fold_classes(len(reader.classes), self.fold, self.fold_scheme)
        check_base(classes, self.fold)
        pool = build_pool(
            build_index(reader, "Reading training masks"),
            base,
            self.shot,
            self.min_pixels,
            exclude=novel if self.exclude_novel else (),
            names=dict(enumerate(reader.classes, start=1)),
            query_classes=self.query_classes,
        )
        logger.info("%d training pictures of %d base classes", len(pool.queries), len(pool.images_of))
        return EpisodeDataset(
            self._keep(reader),
            pool,
            self.shot,
            self.seed,
            self.train_transform,
            base_classes=base,
            with_base_mask=self.with_base_masks,
            support_annotation=self.support_annotation,
        )

    def _eval_dataset(self) -> EpisodeDataset:
        reader = checked_reader(self.eval_reader())
        classes = fold_classes(len(reader.classes), self.fold, self.fold_scheme)
        names = dict(enumerate(reader.classes, start=1))
        if self.eval_classes == "base":
            check_base(classes, self.fold)
        evaluated, base = getattr(classes, self.eval_classes), classes.base
        if self.seen_classes is not None:
            evaluated, base = unseen_classes(reader.classes, self.seen_classes), ()
        index = build_index(reader, "Reading evaluation masks")
        if self.eval_list is not None:
            reader, index = in_order(reader, index, self.eval_list)
        any_size = self.setting == "generalized" and self.draw == "published"
        min_pixels = 1 if any_size else self.min_pixels
        pool = build_pool(index, evaluated, self.shot, min_pixels, names=names, query_classes=self.query_classes)
        self.left_out = [names[c] for c in pool.left_out]
        self.evaluated = {c: names[c] for c in sorted(evaluated)}
        logger.info(
            "%d evaluation pictures of %d %s classes", len(pool.queries), len(pool.images_of), self.eval_classes
        )
        self._index = index
        episodes = EpisodeDataset
        if self.setting == "generalized":
            shown = 1 if self.query_classes == "any" else min_pixels
            pool, episodes = generalized_pool(index, pool, base, shown), GeneralizedEpisodes
        return episodes(
            self._keep(reader),
            pool,
            self.shot,
            self.eval_seed,
            self.eval_transform,
            with_label=True,
            base_classes=base,
            support_annotation=self.support_annotation,
            draws=self.draws,
        )

    def several_episodes(self, classes: int, absent: bool) -> SeveralEpisodes:
        """The evaluation episodes, each asking for `classes` classes; see `SeveralEpisodes`."""
        pool, pictures = self.evaluation.pool, len(self.evaluation.reader)
        assert self._index is not None
        showing = images_by_class(self._index, pool.images_of, 1)
        return SeveralEpisodes(self.evaluation, showing, pictures, classes, absent)

    @property
    def training(self) -> EpisodeDataset:
        """The training episodes."""
        assert self._train is not None, "call setup('fit') first"
        return self._train

    @property
    def evaluation(self) -> EpisodeDataset:
        """The evaluation episodes."""
        assert self._eval is not None, "call setup first"
        return self._eval

    @property
    def geometry(self) -> Geometry:
        """How evaluation pictures lie in the square."""
        return self.evaluation.geometry

    @property
    def base_classes(self) -> list[int]:
        """Ids of the fold's base classes in ascending order."""
        return self.evaluation.base_classes

    @property
    def class_names(self) -> Sequence[str]:
        """Names of all classes of the evaluation pictures; class id c has index c - 1."""
        return self.evaluation.reader.classes

    @property
    def always_counted(self) -> dict[int, str]:
        """Ids and names of the classes that count even without episodes, ascending."""
        return self.evaluated if self.absent == "zero" else {}

    def evaluated_classes(self, episodes: int) -> dict[int, str]:
        """Ids and names of the classes in the means over the first `episodes` evaluation episodes, ascending."""
        drawn = {self.evaluation.draw(i).class_id for i in range(episodes)}
        missed = sorted(set(self.evaluation.pool.images_of) - drawn)
        names = self.class_names
        if missed and episodes not in self._told:  # warn once, not at every validation
            self._told.add(episodes)
            logger.warning(
                "none of %d episodes is of the classes: %s; %s",
                episodes,
                ", ".join(names[c - 1] for c in missed),
                "they count as 0 (protocol.absent=leave_out leaves them out)"
                if self.absent == "zero"
                else "use more episodes to evaluate them",
            )
        return dict(sorted(({c: names[c - 1] for c in drawn} | self.always_counted).items()))

    def list_facts(self) -> dict[str, Any]:
        """Number of pictures and digest of the ordered lists in evaluation: `all` pictures, and the `queries`."""
        episodes = self.evaluation
        lists = {"all": range(len(episodes.reader)), "queries": episodes.pool.queries.tolist()}
        return {"lists": {name: facts(episodes.reader, numbers)._asdict() for name, numbers in lists.items()}}

    def train_dataloader(self) -> DataLoader[Episode]:
        episodes = self.train_episodes or len(self.training.pool.queries)
        if episodes < self.batch_size:
            raise ValueError(
                f"an epoch of {episodes} training episodes does not fill a batch of {self.batch_size}: reduce "
                "batch_size or increase dataset.train_episodes"
            )
        sampler, batch_size = training_batches(self.trainer, episodes, self.batch_size)
        return training_loader(self.training, sampler, batch_size, self.num_workers, collate)

    def val_dataloader(self) -> DataLoader[list[Picture]]:
        planned = plan_episodes(self.evaluation, [self.eval_seed], self.val_episodes)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self._validation = Share(self.evaluation, planned, rank, world, self.eval_batch_size)
        return self._validation.loader(self.num_workers)

    @property
    def validation(self) -> Share:
        """What this process does of each validation."""
        assert self._validation is not None, "call val_dataloader first"
        return self._validation

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Keeps the pictures of a validation on the host; they are moved to the device when they are encoded."""
        if isinstance(batch, Episode):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return [own_copy(picture) for picture in batch]
