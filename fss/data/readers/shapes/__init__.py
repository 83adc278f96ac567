"""The embedded data set `shapes`: procedural pictures with masks, for runs that need no download.

A picture is created in two steps, each with its own random stream. The *layout* places the objects and gives the
mask; it is cheap, so that all masks of a split can be scanned quickly. The *painting* adds background, textures,
light and noise; it is done once per picture and then kept in memory.
"""

from fss.data.readers.shapes.reader import Shapes

__all__ = ["Shapes"]
