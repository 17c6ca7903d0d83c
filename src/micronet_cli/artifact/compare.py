"""A packed network beside the fake-quantised one it came from."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.integer import IntegerActivation

BATCH = 2  # every quantised activation is kept meanwhile


@dataclass
class Comparison:
    """What differs between two networks on the same images.

    Attributes:
        images: compared.
        same_predictions: images with the same top-1 class.
        same_codes: images with the same integers at every quantiser.
        unexplained: images with the same integers and another top-1 class: a fault.
        codes: integer activations compared, at every quantiser that both execute.
        differing_codes: those that are not equal.
        differing_by_module: the modules with such.
        logit_error: largest difference of a logit over the largest logit.
    """

    images: int = 0
    same_predictions: int = 0
    same_codes: int = 0
    unexplained: int = 0
    codes: int = 0
    differing_codes: int = 0
    logit_error: float = 0.0
    differing_by_module: dict[str, int] = field(default_factory=dict)


@torch.no_grad()
def compare(
    source: nn.Module, packed: nn.Module, images: Tensor, dtype: torch.dtype, alone: bool = False
) -> Comparison:
    """Run both in ``dtype`` on ``images [N, C, H, W]``; neither is changed.

    With ``alone`` the packed network goes on with the source's integers behind every quantiser, so that each is
    compared on its own: a code that rounding moved takes no others with it.

    Raises:
        ValueError: one executes quantisers that the other does not have.
    """
    networks = [copy.deepcopy(network).to(dtype).eval() for network in (source, packed)]
    found = Comparison()
    differing: defaultdict[str, int] = defaultdict(int)
    for batch in images.split(BATCH):
        with _watched(networks[0], {}) as first:
            logits = networks[0](batch.to(dtype))
        with _watched(networks[1], first if alone else {}) as second:
            other = networks[1](batch.to(dtype))
        if first.keys() != second.keys():
            raise ValueError(f"quantisers of one network alone: {', '.join(sorted(first.keys() ^ second.keys())[:3])}")
        changed = torch.zeros(len(batch), dtype=torch.bool)
        for name, codes in first.items():
            for ours, theirs in zip(codes, second[name], strict=True):
                found.codes += ours.numel()
                differing[name] += int((different := ours != theirs).sum())
                changed |= different.reshape(len(batch), -1).any(1)
        same = logits.argmax(1) == other.argmax(1)
        found.images += len(batch)
        found.same_predictions += int(same.sum())
        found.same_codes += int((~changed).sum())
        found.unexplained += int((~same & ~changed).sum())
        error = float((logits - other).abs().max() / logits.abs().max().clamp_min(torch.finfo(dtype).tiny))
        found.logit_error = max(found.logit_error, error)
    found.differing_by_module = {name: count for name, count in differing.items() if count}
    found.differing_codes = sum(differing.values())
    return found


@contextmanager
def _watched(model: nn.Module, given: Mapping[str, list[Tensor]]) -> Iterator[dict[str, list[Tensor]]]:
    """Quantiser -> its integers at every call; the network goes on with those that are ``given``."""
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)

    def hook(name: str) -> object:
        def note(module: ActivationFakeQuantize, inputs: tuple, output: Tensor) -> Tensor:
            integers = isinstance(module, IntegerActivation) and module.dtype is not None
            scale = 1 if integers else module.qparams()[0].to(output.dtype)
            seen[name].append(torch.round(output * scale).to(torch.int32))
            if name not in given:
                return output
            return (given[name][len(seen[name]) - 1] / scale).to(output.dtype)

        return note

    quantizers = [(n, m) for n, m in model.named_modules() if isinstance(m, ActivationFakeQuantize)]
    handles = [module.register_forward_hook(hook(name)) for name, module in quantizers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
