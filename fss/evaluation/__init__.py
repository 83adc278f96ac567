"""Evaluation: which episodes, how they are answered, what is kept of them."""
