"""Which images calibrate a network and which evaluate it: drawn by seed, kept in tars of their own."""

import hashlib
import os
import tarfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Split:
    """Names of images; none is in both parts.

    Attributes:
        calibrate: what a quantiser may look at.
        evaluate: what it is judged by.
    """

    calibrate: list[str]
    evaluate: list[str]


def image_names(tar: Path) -> list[str]:
    """All files of a tar, ``<class>/<image>``, in order."""
    with tarfile.open(tar) as archive:
        return sorted(member.name for member in archive if member.isfile())


def class_of(name: str) -> str:
    """The folder that an image is in."""
    return PurePosixPath(name).parts[0]


def one_a_class(names: Iterable[str]) -> list[str]:
    """The first image of each class."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(class_of(name), name)
    return list(first.values())


def drawn(names: Iterable[str], count: int, seed: int) -> list[str]:
    """At most ``count`` of the names, the same for the same seed on every machine and in every order of the names."""

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    return sorted(names, key=place)[:count]


def split(names: Sequence[str], calibrate: int, evaluate: int, seed: int) -> Split:
    """``evaluate`` images, the same for every seed, and ``calibrate`` others, drawn by ``seed``; one a class.

    Raises:
        ValueError: there are not so many classes.
    """
    candidates = one_a_class(names)
    if len(candidates) < calibrate + evaluate:
        raise ValueError(f"{len(candidates)} classes; {calibrate} + {evaluate} images of one class each are needed")
    judged = drawn(candidates, evaluate, seed=0)
    others = set(candidates) - set(judged)
    return Split(drawn(others, calibrate, seed), judged)


def write_tar(source: Path, names: Collection[str], target: Path) -> None:
    """Copy the images of those names into a tar, unless it is there."""
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    chosen = set(names)
    with tarfile.open(source) as archive, tarfile.open(unfinished, "w") as copy:
        for member in archive:
            if member.name in chosen:
                copy.addfile(member, archive.extractfile(member))
    os.replace(unfinished, target)
