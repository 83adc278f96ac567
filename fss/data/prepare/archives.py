"""Finds, downloads, checks and unpacks official archives."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from rich.progress import Progress

from fss.data.parallel import progress
from fss.files import whole

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)


class Archive(NamedTuple):
    """An official archive.

    Attributes:
        url: Download address, which ends with the file name.
        md5: MD5 checksum of the file, if its authors or torchvision publish one.
    """

    url: str
    md5: str | None = None

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
        raise FileNotFoundError(
            f"no {archive.name} in {' or '.join(map(str, folders))}: download it from {archive.url} and give its "
            "folder with --archives, or have it downloaded with --download"
        )
    # imported here because it loads torch, which takes seconds
    from torchvision.datasets.utils import download_url

    target = folders[0] / archive.name
    try:
        with whole(target) as unfinished:
            download_url(archive.url, unfinished.parent, unfinished.name, archive.md5)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{archive.url} cannot be downloaded ({error}): put {archive.name} into {folders[0]}"
        ) from error
    return target


def unpack(archive: Path, wanted: str, destination: Path) -> int:
    """Unpacks selected files of a tar (with any compression) or zip archive, skipping files that already exist.

    Args:
        archive: The archive.
        wanted: Regular expression that must match a file's full name in the archive; its first group is the path
            below `destination`.
        destination: Target folder, created if missing. Nothing is written outside it.

    Returns:
        Number of files unpacked.

    Raises:
        ValueError: If the archive is damaged, truncated, or contains no matching file.
    """
    destination.mkdir(parents=True, exist_ok=True)
    staging = destination / ".unpacking"  # on the same file system, so that files can be moved by renaming
    found = new = 0
    try:
        with archive.open("rb") as raw, progress() as bar:
            entries = _zip_entries if zipfile.is_zipfile(raw) else _tar_entries
            raw.seek(0)
            for entry in entries(raw, bar, f"Unpacking {archive.name}"):
                if not (match := re.fullmatch(wanted, entry.name)):
                    continue
                found += 1
                target = destination / match[1]
                if target.is_file() and target.stat().st_size == entry.size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                entry.extract(staging).replace(target)
                new += 1
    except _DAMAGE as error:
        what = str(error).partition(":\n")[0]  # tarfile then lists every compression that it tried
        raise ValueError(f"{archive} is damaged or truncated ({what}): download it again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not found:
        raise ValueError(f"{archive} is not the official archive (no file matches {wanted}): download that one")
    return new


class _Entry:
    """A file in an archive."""

    def __init__(self, container: tarfile.TarFile | zipfile.ZipFile, info: tarfile.TarInfo | zipfile.ZipInfo):
        self._container, self._info = container, info
        self.name = info.name if isinstance(info, tarfile.TarInfo) else info.filename
        self.size = info.size if isinstance(info, tarfile.TarInfo) else info.file_size

    def extract(self, folder: Path) -> Path:
        if isinstance(self._container, zipfile.ZipFile):
            return Path(self._container.extract(self._info, folder))  # type: ignore[arg-type]
        self._container.extract(self._info, folder, filter="data")  # type: ignore[arg-type]
        return folder / self.name


def _tar_entries(raw: IO[bytes], bar: Progress, description: str) -> Iterator[_Entry]:
    task = bar.add_task(description, total=raw.seek(0, 2))
    raw.seek(0)
    with tarfile.open(fileobj=raw) as tar:
        for member in tar:
            if member.isfile():
                yield _Entry(tar, member)
            bar.update(task, completed=raw.tell())


def _zip_entries(raw: IO[bytes], bar: Progress, description: str) -> Iterator[_Entry]:
    with zipfile.ZipFile(raw) as container:
        for info in bar.track(container.infolist(), description=description):
            if not info.is_dir():
                yield _Entry(container, info)
