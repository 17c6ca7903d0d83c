"""The pixels that every method sees, and the logits of a network of micronet on them.

    python benchmarks/network_outputs.py pixels RUN TAR FILE   preprocessed as RUN's network is evaluated
    python benchmarks/network_outputs.py logits RUN PIXELS FILE

Pixels are a safetensors file of ``images [N, 3, H, W]`` and ``labels [N]``; logits are an ``.npy`` of ``[N, classes]``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from micronet_cli import checkpoint, load
from micronet_cli.data.datasets import ImageFolder

BATCH = 50


def write_pixels(run: str, tar: str, path: Path) -> None:
    """The images of ``tar`` as the network of ``run`` is evaluated on them."""
    network = checkpoint.load(run, "run")
    data = ImageFolder(test=tar, eval_batch_size=BATCH, workers=0)
    loader = data.loader("test", network.spec, torch.device("cpu"), classes=network.classes)
    batches = list(loader.batches())
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    save_file({"images": images.contiguous(), "labels": labels}, path)


@torch.inference_mode()
def write_logits(run: str, pixels: str, path: Path) -> None:
    """What the network of ``run`` says of them."""
    model = load(run)
    images = load_file(pixels)["images"]
    logits = torch.cat([model(batch) for batch in images.split(BATCH)])
    np.save(path, logits.numpy())


def main() -> None:
    """Write the file asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pixels", "logits"))
    parser.add_argument("run", help="a run's directory")
    parser.add_argument("source", help="a tar of images; pixels")
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    write = {"pixels": write_pixels, "logits": write_logits}[given.what]
    write(given.run, given.source, given.file)


if __name__ == "__main__":
    main()
