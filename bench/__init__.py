"""Timings, and checks that take too long for the tests."""
