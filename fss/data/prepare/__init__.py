"""From the official archives to the layouts that the readers read: `python -m fss.data.prepare`."""
