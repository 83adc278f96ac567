"""Finds, downloads, checks and unpacks official archives."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import shutil
import struct
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from rich.progress import Progress

from fss.data.parallel import progress
from fss.files.text import is_file_name
from fss.files.whole import whole

_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, struct.error),
    # zipfile's for a password or a compression that it does not know, and what both raise for absurd numbers
    *(RuntimeError, NotImplementedError, ValueError, OverflowError, IndexError, KeyError, UnicodeError),
)
LARGEST = 64 * 10**9  # bytes that an archive of unknown contents may unpack to


class Archive(NamedTuple):
    """An official archive.

    Attributes:
        url: Download address, which ends with the file name.
        md5: MD5 checksum of the file, if its authors or torchvision publish one.
        sha256: SHA-256 checksum of the file, as TensorFlow Datasets records it.
        size: Size of the file in bytes.
        unpacked: Bytes that its members may have together, a generous bound.
    """

    url: str
    md5: str | None = None
    sha256: str | None = None
    size: int | None = None
    unpacked: int = LARGEST

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def find_archive(archive: Archive, folders: Sequence[Path], download: bool = False) -> Path:
    """Returns the path of an archive, downloading it into the first folder if it is missing and that is allowed.

    Args:
        archive: The archive to find.
        folders: Folders to search, in order.
        download: Download the archive if no folder contains it.

    Raises:
        FileNotFoundError: If the archive is missing and must not be downloaded.
        ValueError: If it cannot be downloaded or arrives damaged.
    """
    folders = list(dict.fromkeys(folders))
    for folder in folders:
        if (folder / archive.name).is_file():
            return folder / archive.name
    if not download:
        offer = ", or have it downloaded with --download" if archive.sha256 or archive.md5 else ""
        raise FileNotFoundError(
            f"no {archive.name} in {' or '.join(map(str, folders))}: download it from {archive.url} and give its "
            f"folder with --archives{offer}"
        )
    target = folders[0] / archive.name
    try:
        with whole(target) as unfinished:
            _download(archive, unfinished)
    except OSError as error:
        raise ValueError(
            f"{archive.url} cannot be downloaded ({error}): put {archive.name} into {folders[0]}"
        ) from error
    return target


def _download(archive: Archive, target: Path) -> None:
    """Downloads a file and compares its checksum; without a known one, nothing is downloaded.

    Raises:
        OSError: If it is not to be had, or not the file that it should be.
    """
    known = archive.sha256 or archive.md5
    if known is None:
        raise OSError("its checksum is not known here")
    found = hashlib.sha256() if archive.sha256 else hashlib.md5(usedforsecurity=False)
    largest, size = archive.size or LARGEST, 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "Mozilla/5.0"})
    with urllib.request.urlopen(request, timeout=60) as response, target.open("wb") as file, progress() as bar:
        task = bar.add_task(f"Downloading {archive.name}", total=archive.size)
        while block := response.read(1 << 20):
            if (size := size + len(block)) > largest:
                raise OSError(f"it is larger than the {largest} bytes that it should have")
            found.update(block)
            file.write(block)
            bar.update(task, completed=size)
    if found.hexdigest() != known:
        raise OSError(f"its checksum is {found.hexdigest()}, should be {known}")


class _RefusedError(ValueError):
    """An archive that is not damaged, but must not be unpacked."""


def unpack(archive: Path, wanted: str, destination: Path, limit: int = LARGEST) -> int:
    """Unpacks selected files of a tar (with any compression) or zip archive, skipping files that already exist.

    Args:
        archive: The archive.
        wanted: Regular expression that must match a file's full name in the archive; its first group is the path
            below `destination`.
        destination: Target folder, created if missing. Nothing is written outside it.
        limit: Bytes that the archive may unpack to.

    Returns:
        Number of files unpacked.

    Raises:
        ValueError: If the archive is damaged, truncated, contains no matching file, a name that leads out of
            `destination`, or more than `limit`.
    """
    found = new = 0
    try:
        with archive.open("rb") as raw, progress() as bar:
            entries = _zip_entries if zipfile.is_zipfile(raw) else _tar_entries
            raw.seek(0)
            for entry in entries(raw, bar, f"Unpacking {archive.name}"):
                if entry.end > limit:
                    raise _RefusedError(
                        f"{archive} unpacks to more than {limit / 1e9:.1f} GB: it is not the official archive, "
                        "download that one"
                    )
                if not (match := re.fullmatch(wanted, entry.name)):
                    continue
                if not is_file_name(entry.name.removeprefix("./")) or not is_file_name(match[1]):
                    raise _RefusedError(
                        f"{archive} is damaged ({ascii(entry.name)[:80]} leads outside): download it again"
                    )
                found += 1
                target = destination / match[1]
                if target.is_file() and target.stat().st_size == entry.size:
                    continue
                with whole(target) as unfinished:
                    entry.extract(unfinished)
                new += 1
    except _RefusedError:
        raise
    except _DAMAGE as error:
        what = str(error).partition(":\n")[0][:200]  # tarfile then lists every compression that it tried
        raise ValueError(f"{archive} is damaged or truncated ({what}): download it again") from error
    if not found:
        raise ValueError(f"{archive} is not the official archive (no file matches {wanted}): download that one")
    return new


class _Entry(NamedTuple):
    """A file in an archive.

    Attributes:
        name: As the archive has it; it decides nothing but whether the file is wanted.
        size: In bytes.
        end: Bytes that the archive unpacks to up to its end.
        open: Opens its content.
    """

    name: str
    size: int
    end: int
    open: Callable[[], IO[bytes] | None]

    def extract(self, target: Path) -> None:
        """Writes the content, of exactly its size, to a file whose name is the caller's choice."""
        with target.open("wb") as file:
            if content := self.open():
                with content:
                    shutil.copyfileobj(content, file)
            if file.tell() != self.size:
                raise EOFError(f"{self.name} has {file.tell()} of {self.size} bytes")


def _tar_entries(raw: IO[bytes], bar: Progress, description: str) -> Iterator[_Entry]:
    task = bar.add_task(description, total=raw.seek(0, 2))
    raw.seek(0)
    with tarfile.open(fileobj=raw) as tar:
        for member in tar:
            if member.size < 0:
                raise tarfile.ReadError("a member of negative size")
            if member.isfile():
                end = member.offset_data + member.size
                yield _Entry(member.name, member.size, end, partial(tar.extractfile, member))
            bar.update(task, completed=raw.tell())


def _zip_entries(raw: IO[bytes], bar: Progress, description: str) -> Iterator[_Entry]:
    with zipfile.ZipFile(raw) as container:
        end = 0
        for info in bar.track(container.infolist(), description=description):
            end += info.file_size
            if not info.is_dir():
                yield _Entry(info.filename, info.file_size, end, partial(container.open, info))
