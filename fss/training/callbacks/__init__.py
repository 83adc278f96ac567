"""Lightning callbacks for training."""

from fss.training.callbacks.class_scores import ClassScores
from fss.training.callbacks.episode_panels import EpisodePanels
from fss.training.callbacks.progress import progress_display
from fss.training.callbacks.singular_values import SingularValues
from fss.training.callbacks.speed import Speed

__all__ = ["ClassScores", "EpisodePanels", "SingularValues", "Speed", "progress_display"]
