"""Inspects a data set and compares it with the published numbers."""
