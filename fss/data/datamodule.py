"""Lightning data module with training, validation and test episodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import lightning
from torch.utils.data import DataLoader

from fss.data.cross_domain import unseen_classes
from fss.data.episodes import Episode, EpisodeDataset, SupportAnnotation, Transform, collate
from fss.data.folds import FoldScheme, check_base, fold_classes
from fss.data.generalized_episodes import GeneralizedEpisodes
from fss.data.index import build_index, build_pool
from fss.data.loading import build_loader, evaluation_ids, training_batches, training_loader
from fss.data.picture_cache import keeper
from fss.data.readers.reader import Reader
from fss.geometry import Geometry

logger = logging.getLogger(__name__)


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
        eval_batch_size: Evaluation episodes per step on each process.
        train_episodes: Training episodes per epoch; None uses every training picture once as query.
        val_episodes: Evaluation episodes at each validation during training.
        test_episodes: Evaluation episodes after training, in the generalised setting.
        eval_seed: Seed of the evaluation episodes (321 as published).
        min_pixels: Minimum number of pixels for a class to count as present in a picture (2048 as published).
        exclude_novel: Drop training pictures that contain any pixel of a novel class; if False, these pixels are
            background in training.
        eval_classes: "novel", or "base" to choose settings without looking at novel classes.
        seen_classes: For a model trained on another data set, the names of its base classes. Evaluation then uses
            all classes except these, whatever the fold.
        with_base_masks: Add the labels of base classes to training episodes, for a base learner.
        support_annotation: "mask", or "box" to annotate supports with boxes instead of masks.
        setting: "standard", or "generalized" to evaluate on all pictures with labels that include base classes.
        num_workers: Loader processes; 0 loads in the main process.
        cache_gb: GiB of decoded pictures and masks to keep in memory, in each process; 0 keeps none.

    Attributes:
        left_out: Names of the evaluation classes with too few pictures; available after `setup`.
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
        exclude_novel: bool = True,
        eval_classes: Literal["novel", "base"] = "novel",
        seen_classes: Sequence[str] | None = None,
        with_base_masks: bool = False,
        support_annotation: SupportAnnotation = "mask",
        setting: Literal["standard", "generalized"] = "standard",
        num_workers: int = 2,
        cache_gb: float = 0.0,
    ) -> None:
        super().__init__()
        if shot < 1:
            raise ValueError(f"shot={shot}: must be at least 1")
        if support_annotation not in get_args(SupportAnnotation):
            raise ValueError(f"dataset.support_annotation={support_annotation!r}: must be 'mask' or 'box'")
        if setting not in ("standard", "generalized"):
            raise ValueError(f"setting={setting!r}: must be 'standard' or 'generalized'")
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
        self.eval_classes, self.seen_classes, self.num_workers = eval_classes, seen_classes, num_workers
        self.with_base_masks, self.support_annotation = with_base_masks, support_annotation
        self.setting = setting
        self._keep = keeper(cache_gb)
        self._told: set[int] = set()  # episode counts for which missing classes were reported
        self._train: EpisodeDataset | None = None
        self._eval: EpisodeDataset | None = None

    def setup(self, stage: str) -> None:
        """Scans all masks and finds the possible episodes, so that errors occur before training starts."""
        if self._eval is None:
            self._eval = self._eval_dataset()
        if stage == "fit" and self._train is None:
            self._train = self._train_dataset()

    def _train_dataset(self) -> EpisodeDataset:
        reader = self.train_reader()
        novel, base = classes = fold_classes(len(reader.classes), self.fold, self.fold_scheme)
        check_base(classes, self.fold)
        pool = build_pool(
            build_index(reader, "Reading training masks"),
            base,
            self.shot,
            self.min_pixels,
            exclude=novel if self.exclude_novel else (),
            names=dict(enumerate(reader.classes, start=1)),
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
        reader = self.eval_reader()
        classes = fold_classes(len(reader.classes), self.fold, self.fold_scheme)
        names = dict(enumerate(reader.classes, start=1))
        if self.eval_classes == "base":
            check_base(classes, self.fold)
        evaluated, base = getattr(classes, self.eval_classes), classes.base
        if self.seen_classes is not None:
            evaluated, base = unseen_classes(reader.classes, self.seen_classes), ()
        index = build_index(reader, "Reading evaluation masks")
        pool = build_pool(
            index,
            evaluated,
            self.shot,
            self.min_pixels,
            names=names,
        )
        self.left_out = [names[c] for c in pool.left_out]
        logger.info(
            "%d evaluation pictures of %d %s classes", len(pool.queries), len(pool.images_of), self.eval_classes
        )
        settings: dict[str, Any] = {
            "reader": self._keep(reader),
            "pool": pool,
            "shot": self.shot,
            "seed": self.eval_seed,
            "transform": self.eval_transform,
            "with_label": True,
            "base_classes": base,
            "support_annotation": self.support_annotation,
        }
        if self.setting == "generalized":
            return GeneralizedEpisodes(index, **settings)
        return EpisodeDataset(**settings)

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

    def evaluated_classes(self, episodes: int) -> dict[int, str]:
        """Ids and names of the classes in the first `episodes` evaluation episodes, in ascending order of id."""
        drawn = {self.evaluation.draw(i).class_id for i in range(episodes)}
        missed = sorted(set(self.evaluation.pool.images_of) - drawn)
        names = self.class_names
        if missed and episodes not in self._told:  # warn once, not at every validation
            self._told.add(episodes)
            logger.warning(
                "none of %d episodes is of the classes: %s; use more episodes to evaluate them",
                episodes,
                ", ".join(names[c - 1] for c in missed),
            )
        return {c: names[c - 1] for c in sorted(drawn)}

    def train_dataloader(self) -> DataLoader[Episode]:
        assert self._train is not None, "call setup first"
        episodes = self.train_episodes or len(self._train.pool.queries)
        if episodes < self.batch_size:
            raise ValueError(
                f"an epoch of {episodes} training episodes does not fill a batch of {self.batch_size}: reduce "
                "batch_size or increase dataset.train_episodes"
            )
        sampler, batch_size = training_batches(self.trainer, episodes, self.batch_size)
        return training_loader(self._train, sampler, batch_size, self.num_workers, collate)

    def val_dataloader(self) -> DataLoader[Episode]:
        return self._evaluation(self.val_episodes)

    def test_dataloader(self) -> DataLoader[Episode]:
        return self._evaluation(self.test_episodes)

    def _evaluation(self, episodes: int) -> DataLoader[Episode]:
        ids = evaluation_ids(self.trainer, episodes)
        return build_loader(self.evaluation, ids, self.eval_batch_size, self.num_workers, collate)
