"""Learns on base classes when a class that is asked for is absent."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from fss.data.sampler import EpisodeSampler
from fss.data.several_episodes import SeveralEpisode, SeveralEpisodes
from fss.evaluation.several_answers import SeveralEvaluation
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import EMPTY, Verifier, fit_verifier

logger = logging.getLogger(__name__)


def choose(evaluation: SeveralEvaluation) -> tuple[Verifier | None, float]:
    """What base classes teach: a verifier, or None where they are too few, and the threshold of presence.

    Raises:
        ValueError: Nothing was absent.
    """
    try:
        classes, objects = zip(*evaluation.objects, strict=True)
        verifier = fit_verifier(torch.stack(objects), classes, evaluation.cases)
        return verifier, verifier.threshold
    except ValueError as error:
        logger.warning("base classes do not teach to verify (%s): similarities alone tell what is absent", error)
        return None, choose_threshold([one.presence for one in evaluation.answers if not one.present])


def choose_threshold(absent_presence: Sequence[float]) -> float:
    """The presence below which the share `EMPTY` of absent classes lies.

    Raises:
        ValueError: Nothing was absent.
    """
    if not absent_presence:
        raise ValueError("no episode asks for a class that its query does not show: use more episodes")
    return float(np.quantile(absent_presence, EMPTY))


@torch.inference_mode()
def learn_verifier(
    segmenter: FewShotSegmenter,
    episodes: SeveralEpisodes,
    count: int,
    device: torch.device,
    num_workers: int,
    limit_gb: float,
) -> Verifier | None:
    """Learns on base classes how to tell that a class is absent, in this process and without a trainer.

    Args:
        segmenter: The segmenter; left without its former verifier.
        episodes: Of base classes, half of whose queries show nothing asked for.
        count: How many.
        device: Where to compute; the segmenter stays there.
        num_workers: Loader processes.
        limit_gb: See `SeveralEvaluation`.

    Returns:
        None where base classes are too few.
    """
    segmenter.verifier = None
    module = SeveralEvaluation(segmenter, episodes, count, None, num_workers, limit_gb).to(device)
    for number, (classes, *tensors) in enumerate(module.loader(EpisodeSampler(count))):
        module.test_step(SeveralEpisode(classes, *(tensor.to(device) for tensor in tensors)), number)
    return choose(module)[0]
