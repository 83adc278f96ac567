"""Converts official archives to the layouts that the readers expect: `python -m fss.data.prepare`."""
