"""Listing: what of a directory or tar is an image, in which class, and what is left out; both answer alike."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from micronet_cli.data.listing import Listing, listing, natural_key


@dataclass(frozen=True)
class Case:
    """Names of files and of empty folders, and what is found in them."""

    files: tuple[str, ...]
    classes: dict[str, int]
    left_out: tuple[str, ...] = ()
    folders: tuple[str, ...] = field(default=())


CASES = {
    "class folders": Case(("red/1.jpg", "red/2.jpg", "blue/1.png"), {"blue": 1, "red": 2}),
    "the folder at the top is the class": Case(
        ("cat/camera/1.jpg", "cat/scan/2.jpg", "dog/camera/1.jpg", "dog/3.jpg"), {"cat": 2, "dog": 2}
    ),
    "every format": Case(
        ("a/1.webp", "a/2.BMP", "a/3.TIFF", "a/4.JPEG", "b/1.gif", "b/2.ppm"), {"a": 4, "b": 2}
    ),
    "hidden files and folders do not count": Case(
        (".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1.png", "a/._1.jpg", "a/1.jpg", "b/1.jpg", "a/.DS_Store",
         "__MACOSX/a/1.jpg"),
        {"a": 1, "b": 1},
    ),
    "an empty folder is a class": Case(("a/1.jpg", "b/1.jpg"), {"a": 1, "b": 1, "dog": 0}, folders=("dog",)),
    "a folder without images is a class": Case(("a/1.jpg", "b/notes.txt"), {"a": 1, "b": 0}, left_out=("b/notes.txt",)),
    "what is no image is left out": Case(
        ("a/1.jpg", "b/1.jpg", "a/1.npy", "README.md", "b/video.mpg"),
        {"a": 1, "b": 1},
        left_out=("README.md", "a/1.npy", "b/video.mpg"),
    ),
    "numbers are sorted by value": Case(("10/1.jpg", "9/1.jpg", "1/1.jpg"), {"1": 1, "9": 1, "10": 1}),
    "a folder around all classes is none": Case(
        ("set/train/a/1.jpg", "set/train/b/1.jpg", "set/README"), {"a": 1, "b": 1}, left_out=("set/README",)
    ),
    "one class stays one": Case(("a/1.jpg", "a/2.jpg"), {"a": 2}),
    "names of one spelling in two cases": Case(("A/1.jpg", "a/1.jpg"), {"A": 1, "a": 1}),
    "digits that are no number": Case(("x²/1².jpg", "y/1.jpg"), {"x²": 1, "y": 1}),
}  # fmt: skip


def image_bytes(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def as_directory(case: Case, root: Path) -> Path:
    root.mkdir()
    for name in case.files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes())
    for name in case.folders:
        (root / name).mkdir()
    return root


def as_tar(case: Case, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in case.folders:
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for name in case.files:
            add(tar, name, image_bytes())
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def counts(found: Listing) -> dict[str, int]:
    return {name: found.folders.count(name) for name in found.classes}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("kind", [as_directory, as_tar])
def test_what_is_found(tmp_path, case, kind):
    found = listing(kind(case, tmp_path / "set.tar"))
    assert list(counts(found).items()) == list(case.classes.items())
    assert sorted(found.left_out) == sorted(case.left_out)


@pytest.mark.parametrize("kind", [as_directory, as_tar])
def test_an_image_outside_of_class_folders_is_an_error(tmp_path, kind):
    with pytest.raises(ValueError, match=r"images outside of class folders, as 1\.jpg"):
        listing(kind(Case(("1.jpg", "a/1.jpg"), {}), tmp_path / "set.tar"))


@pytest.mark.parametrize("kind", [as_directory, as_tar])
def test_a_set_without_an_image_is_an_error(tmp_path, kind):
    with pytest.raises(ValueError, match="no image in it"):
        listing(kind(Case(("a/1.txt",), {}), tmp_path / "set.tar"))


def test_tars_in_a_tar_are_folders_of_their_names(tmp_path):
    inner = tmp_path / "inner.tar"
    with tarfile.open(inner, "w") as tar:
        add(tar, "1.png", image_bytes(7))
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        for name in ("n02.tar", "n01.tar"):
            tar.add(inner, arcname=name)
    found = listing(tmp_path / "outer.tar")
    assert counts(found) == {"n01": 1, "n02": 1}
    content = (tmp_path / "outer.tar").read_bytes()
    for entry in found.images:
        assert content[entry.offset : entry.offset + entry.size] == image_bytes(7)


def test_links_are_followed_in_a_directory_and_to_files_of_a_tar(tmp_path):
    root = as_directory(Case(("a/1.jpg", "b/1.jpg"), {}), tmp_path / "set")
    (root / "b" / "2.jpg").hardlink_to(root / "a" / "1.jpg")
    (root / "c").symlink_to(root / "a")
    assert counts(listing(root)) == {"a": 1, "b": 2, "c": 1}
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(root, arcname=".")
    found = listing(tmp_path / "set.tar")
    assert counts(found) == {"a": 1, "b": 2}
    assert [name for name in found.left_out if "link" in name] == ["./c (a link or device)"]


DAMAGES = {
    "cut in a file": (lambda content: content[:2000], "unexpected end of data"),
    "a damaged header": (lambda content: content[:2048] + b"x" * 512 + content[2560:], "damaged after 2 members"),
    "empty": (lambda content: b"", "empty file"),
    "no tar": (lambda content: b"x" * 5000, "invalid header"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_tar_is_an_error_and_no_shorter_set(tmp_path, damage, reason):
    path = as_tar(Case(("a/1.jpg", "a/2.jpg", "b/1.jpg"), {}), tmp_path / "set.tar")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(tarfile.TarError, match=reason):
        listing(path)


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    root = as_directory(Case(("a/1.jpg", "b/1.jpg"), {}), tmp_path / "set")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError):
        listing(root)


def test_natural_order_compares_numbers_by_value():
    assert sorted(["b10", "b9", "a", "B1", "²"], key=natural_key) == ["a", "B1", "b9", "b10", "²"]
