"""Budgets: accuracy at one score, before any fine-tuning, by who chose the sparsities and bits.

    python benchmarks/budget.py --train TRAIN --test TEST --weights FILE [--sparsity 0.613] [--table FILE]

TRAIN and TEST are ImageFolder directories or tars, FILE weights of ``--model``. The target is the score of magnitude
pruning to ``--sparsity`` with 4-bit weights and inputs, the stem left alone. Every allocation is attached to the
trained network at its final targets, input ranges are taken from held-back training images, and it is tested with
BatchNorm's statistics as they were and with statistics taken anew from those images: the same for all. About three
minutes.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from markdown_page import write_page
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.data.datasets import ImageFolder
from micronet_cli.explore.budget_rules import prune_rules, quantize_rules
from micronet_cli.explore.budgets import Budget
from micronet_cli.explore.prices import Prices
from micronet_cli.explore.sensitivity import Sensitivity
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.training.batch_norm import reestimate_batch_norm
from micronet_cli.training.evaluate import evaluate

ALL_BUT_STEM = "(?!{stem}$).*"
SPARSITIES = [0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
WEIGHT_BITS, ACTIVATION_BITS = [2.0, 3.0, 4.0, 5.0, 6.0, 8.0], [3.0, 4.0, 5.0, 6.0, 8.0]
CALIBRATION_BATCHES = 8
Compressors = list[Any]


def uniform(sparsity: float, scope: str = "layer") -> Compressors:
    """One sparsity, or one threshold over all layers, and four bits everywhere."""
    return [Pruner({"conv": SparsityRule(ALL_BUT_STEM, sparsity)}, scope=scope), w4a4()]


def w4a4() -> Quantizer:
    """The reference's bits."""
    return Quantizer({"conv": BitsRule(ALL_BUT_STEM)})


def compressed(model: nn.Module, compressors: Compressors) -> nn.Module:
    """A copy with the compressors at their final targets."""
    model = copy.deepcopy(model)
    for compressor in compressors:
        compressor.attach(model)
        compressor.update(1, 1)
    return model.eval()


def at_score(score: Callable[[Compressors], float], target: float, make: Callable[[float], Compressors]) -> Compressors:
    """``make(sparsity)`` with the least sparsity whose score is not above the target, by bisection."""
    low, high = 0.0, 0.999
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if score(make(middle)) <= target else (middle, high)
    return make(high)


def with_ranges(model: nn.Module, batches: list) -> nn.Module:
    """The model, its input ranges taken from the batches."""
    observers = [module for module in model.modules() if isinstance(module, ActivationFakeQuantize)]
    for observer in observers:
        observer.seen.zero_()
        observer.train()
    with torch.no_grad():
        for images in batches:
            model(images)
    return model.eval()


def main() -> None:
    """Allocate, test, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--sparsity", type=float, default=0.613)
    parser.add_argument("--images", type=int, default=256, help="of the sensitivities")
    parser.add_argument("--method", default="estimate")
    parser.add_argument("--table", type=Path, default=Path("outputs/budget.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = ImageFolder(train=given.train, test=given.test)
    model = Model(given.model, weights=given.weights).build(len(data.class_names))
    spec, rules = InputSpec.of(model), rule_set("official")
    val, test = (data.loader(split, spec, torch.device("cpu")) for split in ("val", "test"))
    calibration = [images for images, _ in val.some(CALIBRATION_BATCHES * val.batch_size).batches()]

    def score(compressors: Compressors) -> float:
        return float(score_with(compressed(model, compressors), rules, spec.size).metrics()["micronet_score"])

    target = score(uniform(given.sparsity))
    measured = Sensitivity(SPARSITIES, WEIGHT_BITS, ACTIVATION_BITS, method=given.method).measure(
        model, val.some(given.images).batches
    )

    def automatic(rows: list, fixed: Compressors) -> Compressors:
        def make(options: Any) -> Compressors:
            groups = (Pruner, SparsityRule, prune_rules), (Quantizer, BitsRule, quantize_rules)
            made = [(kind, {k: rule(**v) for k, v in write(options).items()}) for kind, rule, write in groups]
            return [kind(rules) for kind, rules in made if rules] + fixed

        def total(options: Any) -> Any:
            return score_with(compressed(model, make(options)), rules, spec.size).metrics()

        prices = Prices(compressed(model, fixed), rules, spec.size)
        return make(Budget(score=target).solve(rows, prices, total))

    stem = measured[0]["layer"]
    zeros = [row for row in measured if row["kind"] == "sparsity" and row["layer"] != stem]
    allocations = {
        f"uniform: {given.sparsity:.1%}, w4a4": uniform(given.sparsity),
        "one magnitude threshold, w4a4": at_score(score, target, lambda s: uniform(s, "global")),
        "budget: sparsities, w4a4": automatic(zeros, [w4a4()]),
        "budget: sparsities and bits": automatic(measured, []),
    }
    rows = []
    for title, compressors in {"dense": [], **allocations}.items():
        network = with_ranges(compressed(model, compressors), calibration)
        metrics = score_with(network, rules, spec.size).metrics()
        as_it_was = evaluate(network, test)["top1"]
        reestimate_batch_norm(network, calibration)
        anew = evaluate(with_ranges(network, calibration), test)["top1"]
        figures = (f"{metrics['micronet_score']:.6f}", f"{metrics['weight_sparsity']:.3f}")
        bits = (f"{metrics['weight_bits_mean']:.2f}", f"{metrics['activation_bits_mean']:.2f}")
        rows.append([title, *figures, *bits, f"{as_it_was:.2f}", f"{anew:.2f}"])
        print(*rows[-1], sep=" | ", flush=True)
    told = (
        f"{given.model}, target score {target:.6f}, no fine-tuning; {len(measured)} sensitivities from "
        f"{given.images} images ({given.method}); top-1 of {test.images} test images."
    )
    columns = ["allocation", "score", "sparsity", "weight bits", "input bits", "top-1 %"]
    write_page(given.table, "Budgets, measured", told, [*columns, "with BatchNorm statistics anew"], rows)


if __name__ == "__main__":
    main()
