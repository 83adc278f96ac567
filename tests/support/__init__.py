"""What several tests share: trees of data sets, small networks, runs that never were."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
