"""Lightning data module with the base learner's training and validation pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning
from torch.utils.data import DataLoader

from fss.data.base_images import BaseImages, LabelledImages, base_images
from fss.data.episodes import Transform
from fss.data.folds import FoldScheme, check_base, fold_classes
from fss.data.index import build_index
from fss.data.loading import build_loader, evaluation_ids, training_batches, training_loader
from fss.data.picture_cache import keeper
from fss.data.readers.reader import Reader, checked_reader


class BaseLearnerDataModule(lightning.LightningDataModule):
    """Pictures labelled with the base classes of a fold; novel classes are background.

    Args:
        train_reader: Creates the reader of training pictures.
        eval_reader: Creates the reader of validation pictures.
        train_transform: Random augmentation.
        eval_transform: Deterministic preprocessing.
        fold: Fold number, 0 to 3.
        fold_scheme: See `fold_classes`.
        seed: Seed for the order of pictures and their augmentation.
        batch_size: Training pictures per step, over all processes.
        eval_batch_size: Validation pictures per step on each process.
        keep_unlabelled: Keep pictures without base classes as pure background, as published.
        num_workers: Loader processes; 0 loads in the main process.
        cache_gb: GiB of decoded pictures and masks to keep in memory, in each process; 0 keeps none.

    Attributes:
        base_classes: Ids of the base classes in ascending order; available after `setup`.
    """

    base_classes: Sequence[int]

    def __init__(
        self,
        train_reader: Callable[[], Reader],
        eval_reader: Callable[[], Reader],
        train_transform: Transform,
        eval_transform: Transform,
        fold: int,
        fold_scheme: FoldScheme,
        seed: int,
        batch_size: int = 12,
        eval_batch_size: int = 4,
        keep_unlabelled: bool = True,
        num_workers: int = 2,
        cache_gb: float = 0.0,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise ValueError(f"batch_size={batch_size}: must be at least 2, because batch norms are trained")
        self.train_reader, self.eval_reader = train_reader, eval_reader
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self.fold, self.fold_scheme, self.seed = fold, fold_scheme, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.keep_unlabelled, self.num_workers = keep_unlabelled, num_workers
        self._keep = keeper(cache_gb)
        self._train: BaseImages | None = None
        self._eval: BaseImages | None = None

    def setup(self, stage: str) -> None:
        """Scans all masks, so that errors occur before training starts."""
        if self._train is None:
            self._train = self._dataset(
                checked_reader(self.train_reader()), self.train_transform, "Reading training masks"
            )
            self._eval = self._dataset(
                checked_reader(self.eval_reader()), self.eval_transform, "Reading validation masks"
            )
            if len(self._train.images) < self.batch_size:
                raise ValueError(
                    f"{len(self._train.images)} training pictures do not fill a batch of {self.batch_size}: "
                    "reduce batch_size"
                )

    @property
    def class_names(self) -> Sequence[str]:
        """Names of all classes of the validation pictures; class id c has index c - 1."""
        assert self._eval is not None, "call setup first"
        return self._eval.reader.classes

    def _dataset(self, reader: Reader, transform: Transform, description: str) -> BaseImages:
        classes = fold_classes(len(checked_reader(reader).classes), self.fold, self.fold_scheme)
        check_base(classes, self.fold)
        self.base_classes = classes.base
        index = build_index(reader, description)
        images = base_images(index, len(reader), self.base_classes, self.keep_unlabelled)
        return BaseImages(self._keep(reader), images, self.base_classes, transform, self.seed)

    def train_dataloader(self) -> DataLoader[LabelledImages]:
        assert self._train is not None, "call setup first"
        sampler, batch_size = training_batches(self.trainer, len(self._train.images), self.batch_size)
        return training_loader(self._train, sampler, batch_size, self.num_workers)

    def val_dataloader(self) -> DataLoader[LabelledImages]:
        assert self._eval is not None, "call setup first"
        ids = evaluation_ids(self.trainer, len(self._eval.images))
        return build_loader(self._eval, ids, self.eval_batch_size, self.num_workers)
