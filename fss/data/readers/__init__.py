"""Readers: each gives access to the pictures and label maps of a data set on disk."""
