"""A packed network beside the fake-quantised one it came from."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from micronet_cli.layers.copies import copied
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

    def add_codes(self, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
        """Count one call of a quantiser, ``[N, ...]`` twice; which images differ, bool ``[N]``."""
        different = ours != theirs
        count = int(different.sum())
        self.codes += different.numel()
        self.differing_codes += count
        if count:
            self.differing_by_module[name] = self.differing_by_module.get(name, 0) + count
        return different.reshape(len(different), -1).any(1)

    def add_logits(self, ours: Tensor, theirs: Tensor, changed: Tensor) -> None:
        """Count the answers to one batch.

        Args:
            ours: logits of one network, ``[N, classes]``.
            theirs: logits of the other.
            changed: images with a differing integer somewhere, bool ``[N]``.
        """
        same = ours.argmax(1) == theirs.argmax(1)
        self.images += len(ours)
        self.same_predictions += int(same.sum())
        self.same_codes += int((~changed).sum())
        self.unexplained += int((~same & ~changed).sum())
        tiny = torch.finfo(ours.dtype).tiny  # logits may all be 0
        largest = ours.abs().max().clamp_min(tiny)
        error = float((ours - theirs).abs().max() / largest)
        self.logit_error = max(self.logit_error, error)


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
    source = copied(source).to(dtype).eval()
    packed = copied(packed).to(dtype).eval()
    comparison = Comparison()
    for part in images.split(BATCH):
        batch = part.to(dtype)
        with _watched(source, {}) as source_codes:
            source_logits = source(batch)
        replaced = source_codes if alone else {}
        with _watched(packed, replaced) as packed_codes:
            packed_logits = packed(batch)
        changed = _compare_codes(comparison, source_codes, packed_codes, len(batch))
        comparison.add_logits(source_logits, packed_logits, changed)
    return comparison


def _compare_codes(
    comparison: Comparison, ours: Mapping[str, list[Tensor]], theirs: Mapping[str, list[Tensor]], images: int
) -> Tensor:
    """Count the integers of one batch; which of its ``images`` differ somewhere."""
    if ours.keys() != theirs.keys():
        only_one = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(f"quantisers of one network alone: {', '.join(only_one[:3])}")
    changed = torch.zeros(images, dtype=torch.bool)
    for name, calls in ours.items():
        for our_codes, their_codes in zip(calls, theirs[name], strict=True):
            changed |= comparison.add_codes(name, our_codes, their_codes)
    return changed


@contextmanager
def _watched(model: nn.Module, given: Mapping[str, list[Tensor]]) -> Iterator[dict[str, list[Tensor]]]:
    """Quantiser -> its integers at every call; the network goes on with those that are ``given``."""
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)

    def hook_of(name: str) -> Callable:
        def note(module: ActivationFakeQuantize, inputs: tuple, output: Tensor) -> Tensor:
            scale = _scale_of_output(module, output.dtype)
            call = len(seen[name])
            seen[name].append(torch.round(output * scale).to(torch.int32))
            if name not in given:
                return output
            return (given[name][call] / scale).to(output.dtype)

        return note

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, ActivationFakeQuantize):
            handles.append(module.register_forward_hook(hook_of(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _scale_of_output(quantizer: ActivationFakeQuantize, dtype: torch.dtype) -> Tensor | int:
    """What the quantiser's output is multiplied by to get its integers."""
    hands_over_integers = isinstance(quantizer, IntegerActivation) and quantizer.dtype is not None
    if hands_over_integers:
        return 1
    scale, _ = quantizer.qparams()
    return scale.to(dtype)
