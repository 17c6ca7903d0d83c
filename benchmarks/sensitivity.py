"""Sensitivities: what reusing the network's beginning saves, and what the estimate without labels is worth.

    python benchmarks/sensitivity.py --train TRAIN --weights FILE [--images 500] [--table FILE]

TRAIN is an ImageFolder directory or tar, FILE weights of ``--model``. Every point of the default sensitivity config is
evaluated three ways on images held back from TRAIN: by the whole network, from the changed layer on, and by the
second-order estimate. Times are processor time on one thread. About four minutes for a ResNet-20.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from markdown_page import write_page
from scipy.stats import spearmanr
from torch import nn

from micronet_cli.data.datasets import ImageFolder
from micronet_cli.data.loader import Loader
from micronet_cli.explore.sensitivity import Sensitivity
from micronet_cli.explore.trial import Trial
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.training.evaluate import evaluate

BATCH = 64
Rows = list[dict[str, Any]]


def timed(make: Callable[[], Rows]) -> tuple[Rows, float]:
    """Rows and the processor seconds they took."""
    start = time.process_time()
    return make(), time.process_time() - start


def whole(model: nn.Module, settings: Sensitivity, loader: Loader) -> Rows:
    """Every point by evaluating the whole network, each on its own."""
    trial = Trial(model)
    trial.watch_inputs(images for images, _ in loader.batches())
    base = evaluate(trial.model, loader)
    rows = []
    for point in trial.points(settings.sparsities, settings.weight_bits, settings.activation_bits):
        with trial.changed(point):
            found = evaluate(trial.model, loader)
        rows.append({"top1": found["top1"], "loss_increase": found["loss"] - base["loss"]})
    return rows


def correlation(one: Rows, other: Rows, keys: tuple[str, str]) -> float:
    """Spearman's, over all points."""
    return float(spearmanr(*([row[key] for row in rows] for rows, key in zip((one, other), keys, strict=True)))[0])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--few", type=int, nargs="+", default=[64, 256], help="images of the estimate")
    parser.add_argument("--table", type=Path, default=Path("outputs/sensitivity.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageFolder(train=given.train, eval_batch_size=BATCH)
    model = Model(given.model, weights=given.weights).build(len(data.class_names))
    val = data.loader("val", InputSpec.of(model), torch.device("cpu"))
    loader = val.some(given.images)

    settings = Sensitivity()
    full, seconds = timed(lambda: whole(model, settings, loader))
    exact, reused = timed(lambda: settings.measure(model, loader.batches))
    same_top1 = max(abs(a["top1"] - b["top1"]) for a, b in zip(full, exact, strict=True))
    same_loss = max(abs(a["loss_increase"] - b["loss_increase"]) for a, b in zip(full, exact, strict=True))
    rows = [
        [f"whole network, {given.images} images", f"{seconds:.1f}", "1", "", ""],
        [
            f"from the changed layer on, {given.images} images", f"{reused:.1f}", f"{seconds / reused:.2f}", "1",
            f"{correlation(exact, exact, ('divergence', 'top1_drop')):.3f}",
        ],
    ]  # fmt: skip
    for images in given.few:
        few = val.some(images)
        estimate, took = timed(partial(Sensitivity(method="estimate").measure, model, few.batches))
        found = [f"{correlation(estimate, exact, ('divergence', key)):.3f}" for key in ("divergence", "top1_drop")]
        title = f"second-order estimate, {images} images, no labels"
        rows.append([title, f"{took:.1f}", f"{seconds / took:.1f}", *found])
    told = (
        f"{given.model}, {len(exact)} points, one thread ({platform.machine()}), torch {torch.__version__}; "
        f"largest difference of the first two: {same_top1:.1g} points of top-1, {same_loss:.1g} nats of loss."
    )
    columns = ["", "processor seconds", "times faster", "Spearman with the divergence", "with the drop in top-1"]
    write_page(given.table, "Sensitivities, measured", told, columns, rows)


if __name__ == "__main__":
    main()
