"""Checksums of zip files: what torch and numpy write has them, and neither looks at them while it reads."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

# what Python's zipfile raises for damage, depending on which of a file's bytes it met
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError),
    *(OSError, LookupError, OverflowError, MemoryError),
)
_FOLDER = 0x10  # an attribute of a member; a zip file of arrays has none


def is_zip(path: Path) -> bool:
    """Whether a file is meant to be a zip file: it begins as one or ends as one, of which damage leaves a half."""
    with path.open("rb") as file:
        begins = file.read(2) == b"PK"
    return begins or zipfile.is_zipfile(path)


def check_zip(path: Path) -> None:
    """Reads every member of a zip file that stores its members as they are, and compares their checksums.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged, no zip file, or holds compressed members, which torch and numpy do not write
            and whose size nobody knows beforehand.
    """
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            members = archive.infolist()
            if packed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
                raise ValueError(f"its member {packed[0]!r:.100} is compressed")
            # torch would leave the memory of a tensor as it found it
            if folders := [member.filename for member in members if member.external_attr & _FOLDER]:
                raise ValueError(f"its member {folders[0]!r:.100} is marked as a folder")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("it holds two members of one name")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of its member {damaged!r:.100} is not that of its content")
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged ({str(error) or type(error).__name__:.300})") from error
