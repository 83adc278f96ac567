"""Data sets as they lie on the disk: each a reader of pictures and label maps."""
