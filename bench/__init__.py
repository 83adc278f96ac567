"""Benchmarks of time and memory, which produced the figures in docs/."""
