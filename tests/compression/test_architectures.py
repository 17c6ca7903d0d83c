"""Rewrites that promise the same function keep it, on a zoo of networks, in double precision.

Cross-layer equalisation, folding of BatchNorms and removal of dead channels, each on networks whose parameters and
statistics are all random, those that start at 0 or 1 included, and a quarter of whose channels are dead. Every row says
what was done; one without effect says why. ``pytest -m slow -s`` shows the rows.
"""

import copy
import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.compression.quantization.folding import fold_batch_norms
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.chains import HOMOGENEOUS, Chain, chains

ROWS = Path(__file__).with_name("architectures.csv")
TOLERANCE = 1e-9  # of the largest logit
QUICK = (
    "resnet8", "nf_resnet26", "mobilenetv2_050", "levit_128s", "repghostnet_050", "starnet_s050", "convnext_zepto_rms",
    "mobilenetv3_small_050",
)  # fmt: skip


class Row(NamedTuple):
    """What the rewrites do to one architecture.

    Attributes:
        equalized: pairs of layers.
        folded: BatchNorms.
        removed: output channels of layers and BatchNorms.
        reason: why one of them has no effect, ``;`` between several.
    """

    name: str
    equalized: int
    folded: int
    removed: int
    reason: str

    @classmethod
    def read(cls) -> "dict[str, Row]":
        """The rows of the table, by name."""
        with ROWS.open(newline="") as file:
            found = [cls(row[0], *map(int, row[1:4]), row[4]) for row in list(csv.reader(file))[1:]]
        return {row.name: row for row in found}


@torch.no_grad()
def random_network(name: str) -> nn.Module:
    """An architecture in double precision, every parameter and statistic of it drawn anew."""
    model = timm.create_model(name, num_classes=10)
    generator = torch.Generator().manual_seed(0)

    def normal(tensor: torch.Tensor, size: float) -> torch.Tensor:
        return size * torch.randn(tensor.shape, generator=generator)

    def positive(tensor: torch.Tensor) -> torch.Tensor:
        return 0.5 + torch.rand(tensor.shape, generator=generator)

    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            parameter.copy_(normal(parameter, 0.3))
        elif parameter.dim() > 1:
            parameter.copy_(normal(parameter, max(parameter[0].numel(), 1) ** -0.5))
        else:
            parameter.copy_(positive(parameter))  # gains, scales of layers and skips
    for norm in model.modules():
        if isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.running_mean.copy_(normal(norm.running_mean, 0.3))
            norm.running_var.copy_(positive(norm.running_var))
    return model.double().eval()


@torch.no_grad()
def plant_dead_channels(model: nn.Module, followed: dict[str, Chain]) -> None:
    """A quarter of the output channels of every layer that is executed once: weight, bias and BatchNorm are 0."""
    for chain in followed.values():
        layer = model.get_submodule(chain.layer)
        writers = [layer] if chain.norm is None else [layer, model.get_submodule(chain.norm)]
        for writer in writers:
            for tensor in (writer.weight, writer.bias):
                if tensor is not None:
                    tensor[: len(layer.weight) // 4] = 0


def input_size(model: nn.Module) -> tuple[int, ...]:
    return tuple(model.pretrained_cfg["input_size"])


def without_effect(model: nn.Module, followed: dict[str, Chain], row: Row) -> list[str]:
    """Why rewrites do nothing to this network."""
    reasons = []
    if not row.equalized:
        reasons.append("not equalised: " + _why_not_equalized(followed))
    if not row.folded:
        norms = any(isinstance(module, BatchNorm) for module in model.modules())
        reasons.append("not folded: " + ("no BatchNorm alone reads a plain product" if norms else "no BatchNorm"))
    if not row.removed:
        reasons.append("not removed: every channel is needed by a layer that shares it")
    return reasons


def _why_not_equalized(followed: dict[str, Chain]) -> str:
    counted: Counter[str] = Counter()
    for chain in followed.values():
        if chain.after is None:
            counted["another reader or operation before the next layer"] += 1
        elif chain.function is not None and chain.function not in HOMOGENEOUS:
            counted[f"{chain.function} between"] += 1
        else:
            counted["a standardised or shared weight"] += 1
    return counted.most_common(1)[0][0] if counted else "no layer is executed once as a module"


def relative_error(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float((logits - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def rewritten(name: str) -> Row:
    """Do each rewrite on a copy of a random network, and check that its logits stay."""
    model = random_network(name)
    size = input_size(model)
    plant_dead_channels(model, chains(model, size))
    followed = chains(model, size)
    images = torch.randn(1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = model(images)
    assert expected.isfinite().all()
    counts = {}

    def keeps_the_logits(changed: nn.Module, what: str, count: int) -> None:
        error = relative_error(changed(images), expected)
        assert error <= TOLERANCE, f"{name}: {what} moves the logits by {error:.1e} of the largest"
        counts[what] = count

    equalized = copy.deepcopy(model)
    keeps_the_logits(equalized, "equalized", len(equalize(equalized, followed)))
    folded = copy.deepcopy(model)
    keeps_the_logits(folded, "folded", len(fold_batch_norms(folded, size)))
    smaller = copy.deepcopy(model)
    removal = find_dead_channels(smaller, size).removal
    removal.attach(smaller)
    removed = sum(len(gone) for gone in removal.outputs.values())
    keeps_the_logits(smaller, "removed", removed)
    row = Row(name, counts["equalized"], counts["folded"], removed, "")
    reasons = without_effect(model, followed, row)
    return row._replace(reason="; ".join(reasons))


def check(name: str) -> None:
    found = rewritten(name)
    print(*found, sep=", ")
    assert found == Row.read()[name]


@pytest.mark.parametrize("name", QUICK)
def test_rewrites_keep_the_logits(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(Row.read().keys() - set(QUICK)))
def test_rewrites_keep_the_logits_of_the_whole_zoo(name):
    check(name)


def test_the_zoo_is_as_large_as_claimed():
    rows = Row.read()
    assert len(rows) >= 60
    assert set(QUICK) <= rows.keys()
    without = [row for row in rows.values() if 0 in (row.equalized, row.folded, row.removed)]
    assert all(row.reason for row in without)
