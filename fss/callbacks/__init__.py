"""What happens beside training and evaluation."""

from fss.callbacks.class_scores import ClassScores
from fss.callbacks.episode_panels import EpisodePanels
from fss.callbacks.progress import progress_display
from fss.callbacks.singular_values import SingularValues
from fss.callbacks.speed import Speed

__all__ = ["ClassScores", "EpisodePanels", "SingularValues", "Speed", "progress_display"]
