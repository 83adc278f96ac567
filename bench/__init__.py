"""Timings and memory: what the figures in docs/ were measured with."""
