"""Where the configuration is that commands are composed from."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def conf_folder() -> str:
    """`conf` at the top of a checkout; an installed package has it inside.

    Raises:
        FileNotFoundError: There is neither.
    """
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(
        f"no conf folder in or beside {PACKAGE}: install fss-svf whole, or run it from its checkout"
    )
