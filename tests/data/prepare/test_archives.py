"""Archives that are not what they should be: nothing outside, nothing without bounds, nothing unchecked."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from fss.data.prepare import archives, coco, pascal
from fss.data.prepare.archives import Archive, find_archive, unpack

WANTED = r"(?:.*/)?(files/.+\.jpg)"


def tar(path: Path, **contents: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_users_own_file_is_not_moved(tmp_path: Path, pack: object) -> None:
    """A member of an absolute name moved the file of that name."""
    own = tmp_path / "files/own.jpg"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    assert callable(pack)
    archive = pack(tmp_path / "a.tar", **{str(own): b"theirs"})
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"a\.tar is damaged \('/.* leads outside\): download it again"):
        unpack(archive, WANTED, tmp_path / "data")
    assert own.read_bytes() == b"mine"
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["files/../../evil.jpg", "../files/evil.jpg", "files/a/../../../evil.jpg", "files//x.jpg"]
)
@pytest.mark.parametrize("pack", [tar, zipped])
def test_names_stay_inside(tmp_path: Path, pack: object, name: str) -> None:
    assert callable(pack)
    archive = pack(tmp_path / "a.tar", **{name: b"evil"})
    with pytest.raises(ValueError, match="leads outside"):
        unpack(archive, WANTED, tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"files/{kind!r}.jpg")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    with pytest.raises(ValueError, match="no file matches"):
        unpack(tmp_path / "a.tar", WANTED, tmp_path / "data")
    entry = zipfile.ZipInfo("files/link.jpg")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr(entry, str(secret))
    unpack(tmp_path / "b.zip", WANTED, tmp_path / "data")
    assert not (tmp_path / "data/files/link.jpg").is_symlink()  # its text, in a plain file


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["files/a.jpg", "other.bin"])
def test_sizes_are_bounded(tmp_path: Path, pack: object, name: str) -> None:
    """3 MB became 3 GiB; also what nobody wants takes time to pass over."""
    assert callable(pack)
    archive = pack(tmp_path / "a.tar", **{name: bytes(20_000_000), "files/b.jpg": b"b"})
    assert archive.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"a\.tar unpacks to more than 0\.0 GB: it is not the official archive"):
        unpack(archive, WANTED, tmp_path / "data", limit=10_000_000)
    assert not list((tmp_path / "data").rglob("*.jpg"))
    assert unpack(archive, WANTED, tmp_path / "data", limit=30_000_000) in (1, 2)


def test_the_real_limits_are_those_of_the_data() -> None:
    assert pascal.VOC.unpacked <= 4e9
    assert pascal.SBD.unpacked <= 8e9
    assert coco.official_archive("zips/train2014.zip").unpacked <= 15e9
    assert coco.official_archive("annotations/annotations_trainval2014.zip").unpacked <= 4e9


def test_damaged_content_leaves_no_file(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"files/a.jpg": bytes(range(256)) * 50})
    content = bytearray(archive.read_bytes())
    content[60] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip is damaged"):
        unpack(archive, WANTED, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


# Downloads


def test_two_that_unpack_the_same_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half-written file of one was given its name by the other."""
    archive = zipped(tmp_path / "a.zip", **{"files/a.jpg": b"first"})
    other = zipped(tmp_path / "b.zip", **{"files/a.jpg": b"other"})
    extract = archives._Entry.extract

    def then_another_process(entry: archives._Entry, target: Path) -> None:
        extract(entry, target)
        with monkeypatch.context() as there:
            there.setattr(os, "getpid", lambda: -1)
            there.setattr(archives._Entry, "extract", extract)
            unpack(other, WANTED, tmp_path / "data")

    monkeypatch.setattr(archives._Entry, "extract", then_another_process)
    assert unpack(archive, WANTED, tmp_path / "data") == 1
    assert (tmp_path / "data/files/a.jpg").read_bytes() == b"first"
    assert len(list((tmp_path / "data/files").iterdir())) == 1


def official() -> list[Archive]:
    sets = [f"zips/{split}{year}.zip" for split in ("train", "val") for year in (2014, 2017)]
    sets += [f"annotations/annotations_trainval{year}.zip" for year in (2014, 2017)]
    return [pascal.VOC, pascal.SBD, *(coco.official_archive(name) for name in sets)]


def test_every_official_archive_is_fetched_safely() -> None:
    for archive in official():
        assert archive.url.startswith("https://")
        assert len(archive.sha256 or "") == 64 or len(archive.md5 or "") == 32
        assert archive.size is None or 10**8 < archive.size < archive.unpacked


def serve(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a.zip").write_bytes(content)
    return (tmp_path / "there/a.zip").as_uri()


def test_checksum_of_a_download(tmp_path: Path) -> None:
    content = gzip.compress(b"content")
    url, right = serve(tmp_path, content), hashlib.sha256(content).hexdigest()
    for sha256, size, message in (
        ("0" * 64, len(content), f"its checksum is {right}, should be 000"),
        (right, len(content) - 1, "it is larger than the"),
        (None, None, "its checksum is not known here"),
    ):
        with pytest.raises(ValueError, match=rf"a\.zip cannot be downloaded \({message}"):
            find_archive(Archive(url, None, sha256, size), [tmp_path / "here"], download=True)
        assert not [path for path in (tmp_path / "here").glob("*") if path.is_file()]
    found = find_archive(Archive(url, None, right, len(content)), [tmp_path / "here"], download=True)
    assert found.read_bytes() == content


def test_unknown_size_is_bounded_too() -> None:
    assert archives.LARGEST == 64 * 10**9
