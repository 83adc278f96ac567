"""PASCAL-5i from small archives with the real names, whole, interrupted, damaged and wrong."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from support import ROOT
from support.reading import use

from fss.data.index import build_index
from fss.data.prepare import pascal
from fss.data.prepare.archives import Archive
from fss.data.prepare.pascal import prepare_pascal, read_sbd
from fss.data.readers.pascal import Pascal

H, W = 20, 30
TRAIN = ["2007_000032", "2008_000008", "2009_000003"]  # VOC's segmentation lists
VAL = ["2007_000033", "2008_000002"]
MAIN_VAL = ["2008_000002", "2010_000005"]  # detection's: 2010_000005 has no mask of VOC
SBD_TRAIN = ["2008_000008", "2008_000002", "2010_000001"]  # two of them VOC's too
SBD_VAL = ["2010_000005", "2011_000004"]
EXPECTED = ["2007_000032", "2008_000008", "2009_000003", "2010_000001", "2011_000004"]
EVERY = sorted({*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL})


def labels(stem: str, source: str) -> np.ndarray:
    """Other pixels in VOC's and SBD's mask of the same picture, and a border in VOC's."""
    c = EVERY.index(stem) % 3 + 1
    mask = np.zeros((H, W), np.uint8)
    mask[2:12, 3:20] = c
    mask[5:15, 10:25] = c + 10
    if source == "voc":
        mask[0, :] = 255
    else:
        mask[19, :] = c
    return mask


def png(mask: np.ndarray) -> bytes:
    image = Image.fromarray(mask)
    image.putpalette(np.random.default_rng(0).integers(256, size=768).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jpg(stem: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((H, W, 3), (10 * EVERY.index(stem), 60, 200), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def mat(mask: np.ndarray) -> bytes:
    """As SBD's files: a struct with boundaries beside the segmentation."""
    buffer = io.BytesIO()
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[np.zeros((H, W))]] * 20
    content = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": np.unique(mask[mask > 0])}
    savemat(buffer, {"GTcls": content}, do_compression=True)
    return buffer.getvalue()


def lines(stems: list[str]) -> bytes:
    return "".join(f"{stem}\n" for stem in stems).encode()


def voc_files() -> dict[str, bytes]:
    voc = "VOCdevkit/VOC2012"
    return {
        f"{voc}/Annotations/2007_000032.xml": b"<annotation/>",
        f"{voc}/ImageSets/Main/val.txt": lines(MAIN_VAL),
        f"{voc}/ImageSets/Segmentation/train.txt": lines(TRAIN),
        f"{voc}/ImageSets/Segmentation/val.txt": lines(VAL),
        **{f"{voc}/JPEGImages/{stem}.jpg": jpg(stem) for stem in EVERY},
        **{f"{voc}/SegmentationClass/{stem}.png": png(labels(stem, "voc")) for stem in TRAIN + VAL},
        **{f"{voc}/SegmentationObject/{stem}.png": png(labels(stem, "voc")) for stem in TRAIN + VAL},
    }


def sbd_files() -> dict[str, bytes]:
    data = "benchmark_RELEASE/dataset"
    return {
        f"{data}/img/2010_000001.jpg": jpg("2010_000001"),
        **{f"{data}/cls/{stem}.mat": mat(labels(stem, "sbd")) for stem in SBD_TRAIN + SBD_VAL},
        f"{data}/train.txt": lines(SBD_TRAIN),
        f"{data}/val.txt": lines(SBD_VAL),
    }


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    pack(folder / "VOCtrainval_11-May-2012.tar", voc_files())
    pack(folder / "benchmark.tgz", sbd_files())
    return folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (info.st_mtime_ns, info.st_ino) for path, info in files.items()}


def check(root: Path) -> None:
    voc = root / "VOCdevkit/VOC2012"
    train, val = Pascal(str(root), "train"), Pascal(str(root), "val")
    assert [Path(train.name(i)).stem for i in range(len(train))] == EXPECTED
    assert [Path(val.name(i)).stem for i in range(len(val))] == VAL
    drawn = {path.stem: np.asarray(Image.open(path)) for path in (voc / "SegmentationClassAug").iterdir()}
    assert sorted(drawn) == EVERY
    for stem, mask in drawn.items():
        np.testing.assert_array_equal(mask, labels(stem, "voc" if stem in TRAIN + VAL else "sbd"))
    assert {Image.open(path).mode for path in (voc / "SegmentationClassAug").iterdir()} == {"L"}
    assert not [path for path in root.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("workers", [1, 2])
def test_archives_to_reader(tmp_path: Path, archives: Path, workers: int) -> None:
    root = tmp_path / "data"
    said = prepare_pascal(root, archives, workers)
    assert said[-1] == "8 masks drawn, 0 already existed."
    check(root)
    voc = root / "VOCdevkit/VOC2012"
    assert not (voc / "Annotations").exists()
    assert not (voc / "SegmentationObject").exists()
    index = build_index(Pascal(str(root), "train"))
    assert sorted(set(index.image.tolist())) == [0, 1, 2, 3, 4]
    found = {(stem, c): n for stem, c, n in zip([EXPECTED[i] for i in index.image], *index[1:], strict=True)}
    for stem in EXPECTED:
        mask = labels(stem, "voc" if stem in TRAIN else "sbd")
        assert {c: n for (s, c), n in found.items() if s == stem} == {
            c: (mask == c).sum() for c in np.unique(mask) if c not in (0, 255)
        }
    # two classes with two pictures each, the third has one
    assert use(Pascal(str(root), "train")) == {f"{stem}.jpg" for stem in EXPECTED if stem != "2010_000001"}


def test_second_run_does_nothing_even_without_archives(tmp_path: Path, archives: Path) -> None:
    root = tmp_path / "data"
    prepare_pascal(root, archives, 1)
    before = state(root)
    for archive in archives.iterdir():
        archive.unlink()
    assert prepare_pascal(root, archives, 1) == ["Nothing to do: everything is in place."]
    assert state(root) == before


def test_interrupted_run_goes_on(tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    real, calls = pascal.write_mask, 0

    def interrupted(path: Path, mask: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        real(path, mask)

    monkeypatch.setattr(pascal, "write_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_pascal(root, archives, 1)
    masks = root / "VOCdevkit/VOC2012/SegmentationClassAug"
    before = state(masks)
    assert len(before) == 3
    with pytest.raises(FileNotFoundError, match=r"train-5i\.txt"):  # half a data set is none
        Pascal(str(root), "train")
    monkeypatch.undo()
    assert prepare_pascal(root, archives, 1)[-1] == "5 masks drawn, 3 already existed."
    assert before.items() <= state(masks).items()
    check(root)


def test_interrupted_unpacking_goes_on(tmp_path: Path, archives: Path) -> None:
    root = tmp_path / "data"
    prepare_pascal(root, archives, 1)
    voc = root / "VOCdevkit/VOC2012"
    (voc / "ImageSets/Segmentation/train-5i.txt").unlink()
    (voc / "JPEGImages/2011_000004.jpg").unlink()  # in no list of VOC's
    (voc / "SegmentationClass/2007_000033.png").write_bytes(b"half")
    (voc / "SegmentationClassAug/2007_000033.png").unlink()
    (root / "benchmark_RELEASE/dataset/cls/2010_000005.mat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no benchmark\.tgz in .*nowhere or .*data: download it from http"
    ):
        prepare_pascal(root, tmp_path / "nowhere", 1)
    assert "1 files unpacked from benchmark.tgz." in prepare_pascal(root, archives, 1)
    check(root)


def test_voc_already_unpacked(tmp_path: Path, archives: Path) -> None:
    with tarfile.open(archives / "VOCtrainval_11-May-2012.tar") as tar:
        tar.extractall(tmp_path / "data", filter="data")
    (archives / "VOCtrainval_11-May-2012.tar").unlink()
    root = tmp_path / "data/VOCdevkit/VOC2012"  # the innermost folder is a root too
    prepare_pascal(root, archives, 1)
    assert len(Pascal(str(root), "train")) == len(EXPECTED)


@pytest.mark.parametrize("name", ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6])
def test_truncated_archive_is_named_and_mended(tmp_path: Path, archives: Path, name: str, keep: float) -> None:
    content = (archives / name).read_bytes()
    (archives / name).write_bytes(content[: int(keep * len(content))])
    root = tmp_path / "data"
    with pytest.raises(ValueError, match=rf"{name} (is damaged|lacks|is not the official).*download it"):
        prepare_pascal(root, archives, 1)
    (archives / name).write_bytes(content)
    prepare_pascal(root, archives, 1)
    check(root)


def test_wrong_archive_is_named(tmp_path: Path, archives: Path) -> None:
    other = {name.replace("VOC2012", "VOC2007"): content for name, content in voc_files().items()}
    pack(archives / "VOCtrainval_11-May-2012.tar", other)
    with pytest.raises(ValueError, match=r"VOCtrainval_11-May-2012\.tar is not the official archive"):
        prepare_pascal(tmp_path / "data", archives, 1)
    (archives / "VOCtrainval_11-May-2012.tar").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"VOCtrainval_11-May-2012\.tar is damaged"):
        prepare_pascal(tmp_path / "data", archives, 1)


def test_archive_that_lacks_files_of_its_lists(tmp_path: Path, archives: Path) -> None:
    files = voc_files()
    del files["VOCdevkit/VOC2012/SegmentationClass/2007_000033.png"]
    pack(archives / "VOCtrainval_11-May-2012.tar", files)
    with pytest.raises(ValueError, match=r"11-May-2012\.tar lacks 1 files .* the first is 2007_000033\.png"):
        prepare_pascal(tmp_path / "data", archives, 1)


def test_nothing_is_written_outside(tmp_path: Path, archives: Path) -> None:
    evil = {"../../VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg": b"evil", **voc_files()}
    pack(archives / "VOCtrainval_11-May-2012.tar", evil)
    with pytest.raises(ValueError, match=r"11-May-2012\.tar is damaged .*outside"):
        prepare_pascal(tmp_path / "data", archives, 1)
    assert not list(tmp_path.rglob("2007_000032.jpg"))


@pytest.mark.parametrize("content", [b"", b"no matlab file", mat(labels("2010_000001", "sbd"))[:150]])
def test_damaged_mat_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mat cannot be read .*delete it"):
        read_sbd(tmp_path / "a.mat")


def test_unknown_class_ids_are_named(tmp_path: Path, archives: Path) -> None:
    files = sbd_files()
    files["benchmark_RELEASE/dataset/cls/2010_000001.mat"] = mat(labels("2010_000001", "sbd") + 20)
    pack(archives / "benchmark.tgz", files)
    with pytest.raises(ValueError, match=r"2010_000001\.mat contains class ids \[2[0-9, ]*\], not 1 to 20"):
        prepare_pascal(tmp_path / "data", archives, 2)


@pytest.fixture
def server(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves the archives on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(archives))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_download(tmp_path: Path, archives: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("VOC", "SBD"):
        path = archives / getattr(pascal, kind).name
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setattr(pascal, kind, Archive(f"{server}/{path.name}", md5))
    root, downloads = tmp_path / "data", tmp_path / "new"
    with pytest.raises(FileNotFoundError, match=r"no VOCtrainval_11-May-2012\.tar in .* with --download"):
        prepare_pascal(root, downloads, 1)
    assert not downloads.exists()
    prepare_pascal(root, downloads, 1, download=True)
    assert sorted(path.name for path in downloads.iterdir()) == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
    check(root)


@pytest.mark.parametrize("md5", [None, "0" * 32])
def test_failed_download_leaves_nothing(
    tmp_path: Path, archives: Path, server: str, md5: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archives / pascal.VOC.name
    if md5 is None:
        path.unlink()
    monkeypatch.setattr(pascal, "VOC", Archive(f"{server}/{path.name}", md5))
    message = r"http:.*May-2012\.tar cannot be downloaded \(.+\): put VOCtrainval_11-May-2012\.tar into .*new"
    with pytest.raises(ValueError, match=message):
        prepare_pascal(tmp_path / "data", tmp_path / "new", 1, download=True)
    assert not list((tmp_path / "new").iterdir())


def test_command(tmp_path: Path, archives: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fss.data.prepare", "pascal5i", f"--root={tmp_path}/data"]
        command += [f"--archives={archives}", "--workers=2"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    first, second = run(), run()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    now = ["pascal5i train: 5 pictures, 5 masks, 20 classes", "pascal5i val: 2 pictures, 2 masks, 20 classes"]
    assert first.stdout.splitlines()[-3:] == ["8 masks drawn, 0 already existed.", *now]
    assert second.stdout.splitlines() == ["Nothing to do: everything is in place.", *now]
    (tmp_path / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/train-5i.txt").unlink()
    for archive in archives.iterdir():
        archive.unlink()
    (tmp_path / "data/benchmark_RELEASE/dataset/train.txt").unlink()
    third = run()
    assert third.returncode == 2
    assert third.stderr.startswith("error: no benchmark.tgz in")
    assert "Traceback" not in third.stderr
