"""Groups of layers that share channels (residual sums, depthwise convolutions, gates), and what can go from them.

The groups are Torch-Pruning's (Fang et al., arXiv 2301.12900).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.torch_internals import BatchNorm


@dataclass(frozen=True)
class Member:
    """One side of a layer in a group of layers that share channels.

    Attributes:
        is_output: its output channels, else its input channels.
        roots: the group's numbers of the channels.
        numbers: its own numbers of the same channels.
    """

    module: nn.Module
    is_output: bool
    roots: Sequence[int]
    numbers: Sequence[int]

    @property
    def is_reader(self) -> bool:
        """Whether these are the inputs of a layer with a weight for each."""
        if self.is_output:
            return False
        return isinstance(self.module, nn.Conv2d | nn.Linear)

    @property
    def has_own_channels(self) -> bool:
        """Whether its channels are taken out of a layer, and are not those of data or of a depthwise input."""
        if self.is_stand_in:
            return False
        # A depthwise convolution's inputs go with its outputs.
        return self.is_output or not _has_groups(self.module)

    @property
    def is_stand_in(self) -> bool:
        """Whether it is Torch-Pruning's module for an operator without parameters."""
        return type(self.module).__module__.startswith("torch_pruning")

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """The group's number and its own number of each channel."""
        return zip(self.roots, self.numbers, strict=True)


@dataclass(frozen=True)
class DeadChannels:
    """Layer -> its output channels, and layer -> its input channels, that no layer of a group needs."""

    outputs: Mapping[nn.Module, list[int]] = field(default_factory=dict)
    inputs: Mapping[nn.Module, list[int]] = field(default_factory=dict)


def groups(twin: nn.Module, input_shape: Sequence[int]) -> Iterator[list[Member]]:
    """Torch-Pruning's groups of all layers but the classifier.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: it cannot follow the network.
    """
    import torch_pruning

    images = torch.rand(1, *input_shape)
    roots = (nn.Conv2d, nn.Linear)
    with warnings.catch_warnings(), torch.enable_grad():  # its graph is autograd's
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(twin, images, verbose=False)
            for group in graph.get_all_groups(root_module_types=roots):
                yield [_member(graph, item) for item in group]
        except Exception as error:  # its errors on networks that it was not written for are of any kind
            kind = type(error).__name__
            said = str(error)[:100]
            raise ValueError(f"torch-pruning cannot follow this network ({kind}: {said})") from None


def _member(graph: Any, item: Any) -> Member:
    module = item.dep.target.module
    is_output = graph.is_out_channel_pruning_fn(item.dep.handler)
    return Member(module, is_output, item.root_idxs, item.idxs)


def dead_in_group(group: Sequence[Member], needed: Mapping[nn.Module, Tensor], multiple: int = 1) -> DeadChannels:
    """The channels that no layer of the group needs; empty where there are none or they cannot be taken out."""
    if not _can_shrink(group, needed):
        return DeadChannels()
    dead = _dead_roots(group, needed, multiple)
    if not dead:
        return DeadChannels()
    outputs: dict[nn.Module, list[int]] = {}
    inputs: dict[nn.Module, list[int]] = {}
    for member in group:
        if not member.has_own_channels:
            continue
        side = inputs
        if member.is_output:
            side = outputs
        gone = [number for root, number in member.pairs if root in dead]
        gone_before = side.get(member.module, [])
        side[member.module] = sorted({*gone_before, *gone})
    return DeadChannels(outputs, inputs)


def _can_shrink(group: Sequence[Member], needed: Mapping[nn.Module, Tensor]) -> bool:
    """Whether every layer of the group can lose channels, and one reads them."""
    for member in group:
        if member.is_stand_in:
            continue
        # Not a LayerNorm, say: its statistics are over the channels.
        if not isinstance(member.module, nn.Conv2d | nn.Linear | BatchNorm):
            return False
    readers = [member for member in group if member.is_reader]
    return bool(readers) and all(_can_lose_inputs(reader, needed) for reader in readers)


def _can_lose_inputs(reader: Member, needed: Mapping[nn.Module, Tensor]) -> bool:
    if _has_groups(reader.module):
        return False
    # Without an entry it is executed by another module.
    if reader.module not in needed:
        return False
    # Torch-Pruning loses count of some channels.
    channels = len(needed[reader.module])
    return max(reader.numbers) < channels


def _dead_roots(group: Sequence[Member], needed: Mapping[nn.Module, Tensor], multiple: int) -> set[int]:
    """The group's numbers of the channels that go; at least one channel stays, and a multiple of ``multiple``."""
    roots: set[int] = set()
    live: set[int] = set()
    for member in group:
        if member.is_output:
            roots.update(member.roots)
        elif member.is_reader:
            needed_here = needed[member.module]
            live.update(root for root, number in member.pairs if needed_here[number])
    if not live:
        live = {min(roots)}
    dead = roots - live
    staying = len(roots) - len(dead)
    missing = -staying % multiple
    spared = sorted(dead)[:missing]
    return dead - set(spared)


def _has_groups(module: nn.Module) -> bool:
    return getattr(module, "groups", 1) > 1
