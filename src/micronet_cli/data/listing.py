"""Which images a directory or a tar holds, in which class folders, and which of its files are no images."""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from micronet_cli.data.images import known_suffixes

# Finder leaves a folder of this name in archives.
HIDDEN_FOLDERS = ("__MACOSX",)


@dataclass(frozen=True)
class Entry:
    """A file or folder.

    Attributes:
        parts: its path inside its root, split: ``("red", "1.jpg")``.
        name: the path as it is reported.
        is_folder: whether it is a folder.
        offset, size: where its bytes lie in a tar; a size of -1: in a file of their own.
    """

    parts: tuple[str, ...]
    name: str
    is_folder: bool = False
    offset: int = 0
    size: int = -1

    @property
    def hidden(self) -> bool:
        """Whether it or a folder around it is hidden."""
        return any(_is_hidden(part) for part in self.parts)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN_FOLDERS


@dataclass(frozen=True)
class Listing:
    """A set of images in class folders.

    Attributes:
        images: in the natural order of their names.
        folders: the class of each image: the folder at the top.
        classes: all folders at the top, also those without an image, in natural order.
        left_out: names of files that are no images.
    """

    images: list[Entry]
    folders: list[str]
    classes: list[str]
    left_out: list[str]


def listing(path: Path) -> Listing:
    """What a directory or tar holds.

    Raises:
        OSError, tarfile.TarError: it cannot be read.
        ValueError: it holds no images, or images outside of folders.
    """
    entries = _in_directory(path) if path.is_dir() else _in_tar_file(path)
    images, folders, left_out = _sorted_by_kind(entries)
    if not images:
        raise ValueError("no image in it")
    images, folders = _inside_common_folder(images, folders)
    for image in images:
        if len(image.parts) == 1:
            raise ValueError(f"images outside of class folders, as {image.name}")
    images.sort(key=lambda image: _order(image.name))
    classes_of_images = [image.parts[0] for image in images]
    classes = {folder.parts[0] for folder in folders}
    classes.update(classes_of_images)
    return Listing(
        images=images,
        folders=classes_of_images,
        classes=sorted(classes, key=_order),
        left_out=left_out,
    )


def _sorted_by_kind(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry], list[str]]:
    """Images, folders, and names of other files; nothing that is hidden."""
    suffixes = known_suffixes()
    images = []
    folders = []
    left_out = []
    for entry in entries:
        if entry.hidden:
            continue
        if entry.is_folder:
            folders.append(entry)
            continue
        suffix = PurePosixPath(entry.name).suffix
        if suffix.lower() in suffixes:
            images.append(entry)
            continue
        left_out.append(entry.name)
        around = entry.parts[:-1]
        if around:
            folders.append(Entry(around, entry.name, is_folder=True))
    return images, folders, left_out


def _order(name: str) -> tuple[list[str | int], str]:
    # Names that differ in case alone have one natural key; the name itself decides then.
    return natural_key(name), name


def natural_key(text: str) -> list[str | int]:
    """A key to sort by: numbers inside a text by their value, as ``img2`` before ``img10``."""
    key: list[str | int] = []
    # What is in parentheses comes between what it splits.
    parts = re.split(r"(\d+)", text.lower())
    for number, part in enumerate(parts):
        is_digits = number % 2 == 1
        if is_digits:
            key.append(int(part))
        else:
            key.append(part)
    return key


def _inside_common_folder(images: list[Entry], folders: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The entries seen from inside a folder around all class folders, as archives have one."""
    while True:
        tops = {entry.parts[0] for entry in [*images, *folders]}
        shallowest = min(len(image.parts) for image in images)
        # A folder with images in it is a class, even if it is the only one.
        if len(tops) > 1 or shallowest <= 2:
            return images, folders
        images = [_inside(image) for image in images]
        folders = [_inside(folder) for folder in folders if len(folder.parts) > 1]


def _inside(entry: Entry) -> Entry:
    return replace(entry, parts=entry.parts[1:])


def _in_directory(root: Path) -> Iterator[Entry]:
    """All below a directory; links are followed."""
    for directory, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        inside = Path(directory).relative_to(root)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for folder in folders:
            path = inside / folder
            yield Entry(path.parts, path.as_posix(), is_folder=True)
        for file in files:
            path = inside / file
            yield Entry(path.parts, path.as_posix())


def _raise(error: OSError) -> None:
    raise error


def _in_tar_file(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield from _in_tar(tar, around=())


def _in_tar(tar: tarfile.TarFile, around: tuple[str, ...], start: int = 0) -> Iterator[Entry]:
    """All in a tar; a tar inside it is the folder of its name.

    Args:
        tar: open, read from its first byte on.
        around: folders around it.
        start: where it begins in the file.
    """
    files: dict[str, Entry] = {}
    for member in tar:
        parts = (*around, *_normalised(member.name))
        if not parts:
            continue
        begin = start + member.offset_data
        if member.isdir():
            yield Entry(parts, member.name, is_folder=True)
        elif member.isfile() and member.name.endswith(".tar"):
            *parents, own_name = parts
            folder = (*parents, own_name.removesuffix(".tar"))
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as inner:
                yield from _in_tar(inner, folder, begin)
        elif member.isfile():
            entry = Entry(parts, member.name, offset=begin, size=member.size)
            files[member.name] = entry
            yield entry
        elif member.islnk() and member.linkname in files:
            # A second name of a file that is in the archive.
            yield replace(files[member.linkname], parts=parts, name=member.name)
        else:
            yield Entry(parts, f"{member.name} (a link or device)")
    _check_end(tar)


def _normalised(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    return tuple(part for part in path.parts if part not in (".", "..", "/"))


def _check_end(tar: tarfile.TarFile) -> None:
    """An archive ends with zeros: tarfile takes a damaged header in its middle for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(tarfile.BLOCKSIZE)
    if rest.strip(b"\0"):
        members = tar.getmembers()
        raise tarfile.ReadError(f"damaged after {len(members)} members")
