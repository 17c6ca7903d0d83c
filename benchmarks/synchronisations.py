"""How often a log interval of training reads what a device has computed, and so would wait for a GPU.

    python benchmarks/synchronisations.py

Counted on the CPU, where reading costs nothing: operations whose answer the host needs (``.item()``, ``bool()`` of a
tensor, indices of booleans, comparisons). The one read of the meter at an interval's end is a copy, which is not
counted. "At once" reads every loss before its backward pass, as on a CPU; "deferred" leaves losses to the interval's
end, as on other devices.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from markdown_page import write_page
from omegaconf import OmegaConf

from micronet_cli.compression.compressor import Compressor
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.config import build
from micronet_cli.functional.granularity import Filter
from micronet_cli.functional.pruning import Taylor
from micronet_cli.functional.schedules import AGP
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec
from micronet_cli.torch_internals import TorchDispatchMode, operator_name
from micronet_cli.training.distill import Decoupled, SoftTargets, Teacher
from micronet_cli.training.learner import Learner
from micronet_cli.training.meter import Meter
from micronet_cli.training.objectives import CrossEntropy, Distillation, Objective
from micronet_cli.training.optim import Optim
from micronet_cli.training.settings import RunLength, TrainerSettings

CONF = Path(__file__).parents[1] / "conf"
READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}
STEPS = (10, 50)
SIZE = (3, 8, 8)


class Reads(TorchDispatchMode):
    """Counts operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation, and count it where the host needs its answer."""
        name = operator_name(func)
        indices = args[1] if name in ("index", "index_put_") else ()
        has_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in READS or has_mask:
            self.count += 1
        return func(*args, **(kwargs or {}))


def quantizer(option: str) -> list[Compressor]:
    """That of ``quantize=option``."""
    return [build(OmegaConf.load(CONF / "quantize" / f"{option}.yaml"), option)]


def pruner(**options: Any) -> list[Compressor]:
    """Half of the weights of every layer but the stem go, a little at every step."""
    rules = {"all": SparsityRule("(?!{stem}$).*", 0.5)}
    return [Pruner(rules, AGP(end=1.0), **options)]


def distillation(kind: Callable[..., Any]) -> Objective:
    """From a teacher of the student's own architecture."""
    teacher = timm.create_model("resnet8")
    spec = InputSpec(SIZE, (0.5,) * 3, (0.5,) * 3)
    loss = kind(Teacher("resnet8")).logit_loss
    return Distillation(teacher, spec, spec, loss, 0.3)


def nothing() -> list[Compressor]:
    """Plain training."""
    return []


RECIPES: dict[str, tuple[Callable[[], Sequence[Compressor]], Callable[[], Objective]]] = {
    "train": (nothing, CrossEntropy),
    "prune=agp": (pruner, CrossEntropy),
    "prune=agp, filters": (lambda: pruner(granularity=Filter()), CrossEntropy),
    "prune=taylor": (lambda: pruner(importance=Taylor()), CrossEntropy),
    "quantize=w4a4": (lambda: quantizer("w4a4"), CrossEntropy),
    "quantize=lsq": (lambda: quantizer("lsq"), CrossEntropy),
    "quantize=a2q": (lambda: quantizer("a2q"), CrossEntropy),
    "distill=soft_targets": (nothing, lambda: distillation(SoftTargets)),
    "distill=decoupled": (nothing, lambda: distillation(Decoupled)),
}


def reads(recipe: str, steps: int, defers: bool) -> int:
    """In one interval of so many steps, after the first batch, from which learned steps begin."""
    make, objective = RECIPES[recipe]
    torch.manual_seed(0)
    model = timm.create_model("resnet8")
    compressors = make()
    for compressor in compressors:
        compressor.attach(model)
    learner = Learner(
        settings=TrainerSettings(),
        optim=Optim("momentum", lr=0.01),
        length=RunLength(100, 100),
        model=model,
        objective=objective(),
        compressors=compressors,
        last=Path("last.safetensors"),
    )
    learner.defers = defers
    meter = Meter()
    batch = torch.randn(8, *SIZE), torch.arange(8)
    learner.train_batch(*batch, meter)
    meter.reset()
    with Reads() as counted:
        for _ in range(steps):
            learner.train_batch(*batch, meter)
        meter.take()
    return counted.count


def main() -> None:
    """Count and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    given = parser.parse_args()
    columns = ["recipe", *[f"{way}, {steps} steps" for way in ("at once", "deferred") for steps in STEPS]]
    table = []
    for recipe in RECIPES:
        counts = [reads(recipe, steps, defers) for defers in (False, True) for steps in STEPS]
        table.append([recipe, *map(str, counts)])
    told = (
        "ResNet-8, counted on a CPU; `benchmarks/synchronisations.py` says what counts. Not measured on a GPU. With "
        "`prune=taylor` scores are checked layer by layer whenever masks shrink."
    )
    write_page(given.output, "Reads that would wait for a GPU, in one log interval", told, columns, table)


if __name__ == "__main__":
    main()
