"""The revision of this program."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """Revision of the checkout, with `-dirty` if it has been changed; None if there is no checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git: results are written without a revision
        return None
