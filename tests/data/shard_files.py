"""WebDataset shards of real digits, for several tests."""

import io
import tarfile
from pathlib import Path

from micronet_cli.data.datasets import Digits


def write_sample(tar: tarfile.TarFile, key: str, **files: bytes) -> None:
    """Add ``<key>.<suffix>`` for every file."""
    for suffix, content in files.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def digit_png(index: int) -> bytes:
    """A training digit as a PNG."""
    image = io.BytesIO()
    Digits().source("train").read(index).save(image, "PNG")
    return image.getvalue()


def write_digit_shards(directory: Path, shards: int = 2, images: int = 40) -> list[int]:
    """``part-0.tar`` and so on, of so many digits each; the labels."""
    source = Digits().source("train")
    labels = source.labels[: shards * images].tolist()
    for shard in range(shards):
        with tarfile.open(directory / f"part-{shard}.tar", "w") as tar:
            for index in range(shard * images, (shard + 1) * images):
                image = io.BytesIO()
                source.read(index).save(image, "PNG")
                write_sample(tar, f"{index:05d}", png=image.getvalue(), cls=str(labels[index]).encode())
    return labels
