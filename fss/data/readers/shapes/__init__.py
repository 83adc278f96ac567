"""The embedded data set `shapes`: procedural pictures with masks, for runs that need no download.

A picture is made in two steps with a random stream each. The *layout* says which objects lie where and gives
the mask; it is cheap, so that all masks of a split can be scanned at once. The *painting* adds background,
textures, light and noise, and is done once a picture, then kept in memory.
"""

from fss.data.readers.shapes.reader import Shapes

__all__ = ["Shapes"]
