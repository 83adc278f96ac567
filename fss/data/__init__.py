"""Turns pictures and masks into episodes."""
