"""Checks that need long runs (kills, several processes), and the check of the import structure."""
