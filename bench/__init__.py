"""Benchmarks, and checks that take too long to be tests."""
