"""Few-shot segmentation with singular value fine-tuning (SVF)."""

__version__ = "0.1.0"
