"""Which revision of this program is running."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """The revision of the checkout, with `-dirty` where it has been changed; None where there is no checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git: results stand without it
        return None
