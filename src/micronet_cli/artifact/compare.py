"""A packed network beside the fake-quantised one it came from."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.held_codes import in_precision
from micronet_cli.layers.integer import IntegerActivation

# Stored scales have 32 bits, so a code may fall on the other side of a tie; more than this is a fault.
MOST_DIFFERING_CODES = 1e-4
# Of the largest logit, where all codes are equal: what is stored in float has 24 bits.
MOST_LOGIT_ERROR = 1e-4
BATCH = 2  # every quantised activation is kept meanwhile
Codes = Mapping[str, list[Tensor]]  # quantiser -> its integers at every call


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

    def add_codes(self, name: str, ours: Tensor, theirs: Tensor, images: int) -> Tensor:
        """Count one call of a quantiser; which of the ``images`` differ, bool ``[images]``.

        Args:
            name: of the quantiser.
            ours: integers of one network, ``[images * W, ...]``: an image may be cut into W windows.
            theirs: integers of the other.
            images: in the batch.
        """
        different = ours != theirs
        count = int(different.sum())
        self.codes += different.numel()
        self.differing_codes += count
        if count:
            before = self.differing_by_module.get(name, 0)
            self.differing_by_module[name] = before + count
        by_image = different.reshape(images, -1)
        return by_image.any(1)

    def add_logits(self, ours: Tensor, theirs: Tensor, changed: Tensor) -> None:
        """Count the answers to one batch.

        Args:
            ours: logits of one network, ``[N, classes]``.
            theirs: logits of the other.
            changed: images with a differing integer somewhere, bool ``[N]``.
        """
        our_classes = ours.argmax(1)
        their_classes = theirs.argmax(1)
        same = our_classes == their_classes
        unchanged = ~changed
        unexplained = unchanged & ~same
        self.images += len(ours)
        self.same_predictions += int(same.sum())
        self.same_codes += int(unchanged.sum())
        self.unexplained += int(unexplained.sum())
        tiny = torch.finfo(ours.dtype).tiny  # logits may all be 0
        largest = ours.abs().max().clamp_min(tiny)
        largest_difference = (ours - theirs).abs().max()
        error = float(largest_difference / largest)
        self.logit_error = max(self.logit_error, error)


@torch.no_grad()
def compare(
    source: nn.Module, packed: nn.Module, images: Tensor, dtype: torch.dtype, alone: bool = False
) -> Comparison:
    """Run both in ``dtype`` on ``images [N, C, H, W]``, with the codes of their own precision; neither is changed.

    With ``alone`` the packed network goes on with the source's integers behind every quantiser, so that each is
    compared on its own: a code that rounding moved takes no others with it.

    Raises:
        ValueError: one executes quantisers that the other does not have.
    """
    source = in_precision(source, dtype)
    packed = in_precision(packed, dtype)
    comparison = Comparison()
    for part in images.split(BATCH):
        batch = part.to(dtype)
        with watched(source, {}) as source_codes:
            source_logits = source(batch)
        replaced = source_codes if alone else {}
        with watched(packed, replaced) as packed_codes:
            packed_logits = packed(batch)
        changed = _compare_codes(comparison, source_codes, packed_codes, len(batch))
        comparison.add_logits(source_logits, packed_logits, changed)
    return comparison


def compare_all(source: nn.Module, packed: nn.Module, images: Tensor) -> dict[str, Comparison]:
    """The comparisons in ``float64`` and ``float32``, and where ties decide it ``float64_alone``.

    Raises:
        ValueError: another thing is computed; how much differs, and where.
    """
    found: dict[str, Comparison] = {}
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        found[name] = compare(source, packed, images, dtype)
    exact = found["float64"]
    if _differs(exact):
        # A code on a tie takes those behind it along, all of them where it is one of a constant table.
        exact = compare(source, packed, images, torch.float64, alone=True)
        found["float64_alone"] = exact
    _refuse_differences(exact)
    return found


def _differs(exact: Comparison) -> bool:
    """Whether more differs in float64 than rounding moves."""
    most_differing = MOST_DIFFERING_CODES * exact.codes
    if exact.differing_codes == 0 and exact.logit_error > MOST_LOGIT_ERROR:
        return True
    return exact.unexplained > 0 or exact.differing_codes > most_differing


def _refuse_differences(exact: Comparison) -> None:
    """Stop where another thing is computed.

    Raises:
        ValueError: how much, and where.
    """
    if not _differs(exact):
        return
    by_module = exact.differing_by_module
    where = max(by_module, key=by_module.__getitem__, default="the logits")
    other_predictions = exact.images - exact.same_predictions
    raise ValueError(
        f"the packed network differs from its checkpoint: {exact.differing_codes} of {exact.codes} "
        f"activations, most at {where}; {other_predictions} of {exact.images} predictions; "
        f"logits by {exact.logit_error:.2g} of the largest"
    )


def _compare_codes(comparison: Comparison, ours: Codes, theirs: Codes, images: int) -> Tensor:
    """Count the integers of one batch; which of its ``images`` differ somewhere."""
    if ours.keys() != theirs.keys():
        only_one = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(f"quantisers of one network alone: {', '.join(only_one[:3])}")
    changed = torch.zeros(images, dtype=torch.bool)
    for name, calls in ours.items():
        for our_codes, their_codes in zip(calls, theirs[name], strict=True):
            changed |= comparison.add_codes(name, our_codes, their_codes, images)
    return changed


@contextmanager
def watched(model: nn.Module, given: Codes) -> Iterator[Codes]:
    """Quantiser -> its integers at every call, int32; the network goes on with those that are ``given``."""
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)

    def hook_of(name: str) -> Callable:
        def note(module: ActivationFakeQuantize, inputs: tuple, output: Tensor) -> Tensor:
            scale = scale_of_output(module, output.dtype)
            call = len(seen[name])
            codes = torch.round(output * scale)
            seen[name].append(codes.to(torch.int32))
            if name not in given:
                return output
            value = given[name][call] / scale
            return value.to(output.dtype)

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


def scale_of_output(quantizer: ActivationFakeQuantize, dtype: torch.dtype) -> Tensor | int:
    """What a quantiser's output is multiplied by to get its integers."""
    if isinstance(quantizer, IntegerActivation) and quantizer.dtype is not None:
        return 1  # it hands over its integers
    scale, _ = quantizer.qparams()
    return scale.to(dtype)
