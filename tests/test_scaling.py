"""The drawing of `bench.scaling`."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from bench.scaling import Measured, draw


def test_all_cases_are_drawn() -> None:
    cases = [("ours", 1), ("published", 1), ("ours", 5)]
    results = [
        Measured(way, "pfenet", shot, size, size * shot / 1000, 1.5, size * shot, "a machine")
        for way, shot in cases
        for size in (473, 225)
    ]
    drawn = draw(results)
    texts = {"".join(element.itertext()).strip() for element in ElementTree.fromstring(drawn).iter()}
    for way, shot in cases:
        assert f"pfenet, {shot} shot{'s' * (shot > 1)}, {way}" in texts
    assert {"seconds a step", "resident memory (GiB)", "GFLOP/s"} <= texts
    assert drawn == draw(results[::-1])
