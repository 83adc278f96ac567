"""Few-shot segmentation with singular value fine-tuning (SVF)."""
