"""JSON that every program can read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fss.files.plain import read_json, write_json


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (2, "NaN"), "e": True}
    write_json(tmp_path / "a.json", content)
    expected = {"a": None, "b": [1.5, None, {"c": None}], "d": [2, "NaN"], "e": True}
    assert read_json(tmp_path / "a.json") == expected
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: name) == expected
