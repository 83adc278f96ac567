"""Evaluation: planning episodes, predicting them, and storing and printing the results."""
