"""Images per second from JPEG files to normalised batches, against timm's own training loader and bare decoding.

    python benchmarks/loader.py [--data DIRECTORY_OR_TAR] [--workers N] [--json FILE]

Every variant does the training script's work: random resized crop to 224, mirror, colour jitter, normalise. Variants
are interleaved, medians are shown, and ratios are of pairs measured in the same round. Without ``--data`` it makes
JPEGs of 500 x 375 pixels.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform

from micronet_cli.data.datasets import ImageFolder
from micronet_cli.models.model import InputSpec

SPEC = InputSpec((3, 224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875)
BATCH = 32


def make_images(root: Path, count: int) -> None:
    """Smooth noise, which compresses as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        folder = root / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def micronet(path: str, workers: int) -> Callable[[], int]:
    """This project's loader."""
    data = ImageFolder(train=path, val=path, batch_size=BATCH, augment="imagenet", workers=workers)
    loader = data.loader("train", SPEC, torch.device("cpu"))
    epochs = iter(range(1000))
    return lambda: sum(len(labels) for _, labels in loader.batches(next(epochs)))


def timm_loader(path: str, workers: int) -> Callable[[], int]:
    """timm's, with its training script's defaults."""
    loader = create_loader(
        create_dataset("", root=path),
        SPEC.size,
        BATCH,
        is_training=True,
        interpolation="random",
        num_workers=workers,
        device=torch.device("cpu"),
    )
    return lambda: sum(len(labels) for _, labels in loader)


def bare(path: str, _: int) -> Callable[[], int]:
    """Decoding and transforms alone, one image after the other in this process."""
    dataset = create_dataset(
        "",
        root=path,
        transform=create_transform(SPEC.size, is_training=True, interpolation="random", use_prefetcher=True),
    )
    return lambda: sum(1 for index in range(len(dataset)) if dataset[index] is not None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        if arguments.data is None:
            make_images(Path(made), 256)
        path = arguments.data or made
        variants = {"micronet": micronet, "timm": timm_loader, "bare decode and transform, 1 process": bare}
        passes = {name: make(path, arguments.workers) for name, make in variants.items()}
        speeds: dict[str, list[float]] = {name: [] for name in passes}
        for round_ in range(arguments.rounds + 1):
            for name, one_pass in passes.items():
                started = time.perf_counter()
                images = one_pass()
                if round_:  # the first one warms up
                    speeds[name].append(images / (time.perf_counter() - started))
    print(f"{arguments.workers} workers, batch {BATCH}, {arguments.rounds} rounds, torch {torch.__version__}")
    print(f"{'variant':<38}{'images/s':>9}{'to timm':>9}")
    found = {}
    for name, values in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(values, speeds["timm"], strict=True))
        found[name] = {"images_per_second": statistics.median(values), "ratio_to_timm": ratio}
        print(f"{name:<38}{statistics.median(values):>9.1f}{ratio:>9.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
