"""Checks that need long runs (kills, damaged inputs, several processes), and the check of the import structure."""
