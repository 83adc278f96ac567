"""The revision of this program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fss import __version__


def git_revision() -> str:
    """The revision of the checkout, with `-dirty` where it has been changed; the version where there is none."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():  # installed, perhaps somewhere below another project's checkout
        return __version__
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git: results are written without a revision
        return __version__
