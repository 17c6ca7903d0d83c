"""Which channels of a network are computed for nothing: zero for every image, or read by no layer.

Layers that share a channel (residual sums, depthwise convolutions, gates) are Torch-Pruning's dependency groups (Fang
et al., arXiv 2301.12900). A channel of a group goes where no reader of the group needs it.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm, unparametrized

TOLERANCE = 1e-10  # of the largest logit, in double precision


def find_dead_channels(model: nn.Module, input_shape: Sequence[int], multiple: int = 1) -> Removal:
    """The channels that can go without changing what ``model`` computes in evaluation; both maps empty for none.

    Args:
        model: left as it is.
        input_shape: (channels, height, width).
        multiple: the channels that stay in each group are a multiple of it; some dead ones stay for that. Blocked
            kernels work on 8 or 16 channels, and are slower on fewer channels that are no multiple of these.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: it cannot follow the network.
    """
    twin = plain_copy(model)
    names = {module: name for name, module in twin.named_modules()}
    needed = needed_inputs(twin, input_shape)
    parts = []
    for group in groups(twin, input_shape):
        dead = dead_in_group(group, needed, multiple)
        if dead.outputs:
            outputs = {names[module]: gone for module, gone in dead.outputs.items()}
            inputs = {names[module]: gone for module, gone in dead.inputs.items()}
            parts.append(Removal(outputs, inputs))
    return _all_that_hold(model, parts, input_shape)


def _all_that_hold(model: nn.Module, parts: Sequence[Removal], input_shape: Sequence[int]) -> Removal:
    """Everything where the outputs stay; else each part that leaves them so on top of those before it."""
    whole = _joined(parts)
    if _equal(model, whole, input_shape):
        return whole
    kept: list[Removal] = []
    for part in parts:
        if _equal(model, _joined([*kept, part]), input_shape):
            kept.append(part)
    return _joined(kept)


def _joined(parts: Sequence[Removal]) -> Removal:
    # A group holds all of a channel's layers, so no two groups name the same side of a layer.
    outputs: dict[str, Sequence[int]] = {}
    inputs: dict[str, Sequence[int]] = {}
    for part in parts:
        outputs.update(part.outputs)
        inputs.update(part.inputs)
    return Removal(outputs, inputs)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode without quantisers and parametrizations: weights are the effective ones."""
    twin = copy.deepcopy(model).cpu().float().eval()
    for name, layer in list(twin.named_modules()):
        for key in ("input_fake_quantize", "output_fake_quantize"):
            if getattr(layer, key, None) is not None:
                setattr(layer, key, nn.Identity())
        if effective_weight(layer) is not None:
            twin.set_submodule(name, unparametrized(layer))
    return twin


@torch.no_grad()
def needed_inputs(twin: nn.Module, input_shape: Sequence[int]) -> dict[nn.Module, Tensor]:
    """Convolution or linear layer -> bool ``[C_in]``: the channel is not always zero, and a weight reads it.

    What is not zero is made positive (weights, shifts, images; means become 0), so that no sum cancels and no
    activation function cuts: what is zero then is zero because of the zeros in the weights.
    """
    positive = copy.deepcopy(twin)
    _make_positive(positive)
    seen = _nonzero_inputs(positive, input_shape)
    needed = {}
    for name, layer in compressible_layers(twin).items():
        if name not in seen:
            continue
        nonzero = seen[name]
        read = (layer.weight != 0).transpose(0, 1).flatten(1).any(1)
        # Groups of several channels, or of one, share their weights' second dimension.
        needed[layer] = nonzero & read if len(read) == len(nonzero) else nonzero
    return needed


def _make_positive(model: nn.Module) -> None:
    """Random positive numbers in the place of all parameters but zeros, and running statistics of 0 and 1."""
    for parameter in model.parameters():
        live = (parameter != 0).to(parameter.dtype)
        values = (0.5 + torch.rand_like(live)) * live
        if live.dim() > 1:
            # Rows of mean about 1, so that nothing grows or shrinks from layer to layer.
            ones = [1] * (live.dim() - 1)
            values /= live.flatten(1).sum(1).clamp_min(1).view(-1, *ones)
        parameter.copy_(values)
    for norm in model.modules():
        if isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.reset_running_stats()


def _nonzero_inputs(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Tensor]:
    """Layer that was executed -> bool ``[C_in]``: the channel is not zero everywhere in two positive images."""
    seen: dict[str, Tensor] = {}

    def look_at(name: str, dim: int) -> Callable[[nn.Module, tuple], None]:
        def hook(layer: nn.Module, inputs: tuple) -> None:
            by_channel = inputs[0].movedim(dim, 0).flatten(1)
            nonzero = (by_channel != 0).any(1)
            seen[name] = seen[name] | nonzero if name in seen else nonzero

        return hook

    for name, layer in compressible_layers(model).items():
        dim = -1 if isinstance(layer, nn.Linear) else 1
        layer.register_forward_pre_hook(look_at(name, dim))
    model(0.5 + torch.rand(2, *input_shape))
    return seen


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
    def reads(self) -> bool:
        """Whether these are the inputs of a layer with a weight for each."""
        return isinstance(self.module, nn.Conv2d | nn.Linear) and not self.is_output


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

    with warnings.catch_warnings(), torch.enable_grad():  # its graph is autograd's
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(twin, torch.rand(1, *input_shape), verbose=False)
            for group in graph.get_all_groups(root_module_types=(nn.Conv2d, nn.Linear)):
                yield [_member(graph, item) for item in group]
        except Exception as error:  # its errors on networks that it was not written for are of any kind
            what = f"{type(error).__name__}: {str(error)[:100]}"
            raise ValueError(f"torch-pruning cannot follow this network ({what})") from None


def _member(graph: Any, item: Any) -> Member:
    is_output = graph.is_out_channel_pruning_fn(item.dep.handler)
    return Member(item.dep.target.module, is_output, item.root_idxs, item.idxs)


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
        module = member.module
        if _moves_data(module) or (_depthwise(module) and not member.is_output):
            continue
        pairs = zip(member.roots, member.numbers, strict=True)
        gone = [number for root, number in pairs if root in dead]
        side = outputs if member.is_output else inputs
        side[module] = sorted({*side.get(module, []), *gone})
    return DeadChannels(outputs, inputs)


def _can_shrink(group: Sequence[Member], needed: Mapping[nn.Module, Tensor]) -> bool:
    """Whether every layer of the group can lose channels, and one reads them."""
    for member in group:
        if not (isinstance(member.module, nn.Conv2d | nn.Linear | BatchNorm) or _moves_data(member.module)):
            return False  # a LayerNorm, say: its statistics are over the channels
    readers = [member for member in group if member.reads]
    for reader in readers:
        if getattr(reader.module, "groups", 1) != 1:
            return False
        if reader.module not in needed or max(reader.numbers) >= len(needed[reader.module]):
            return False  # executed by another module, or with channels that Torch-Pruning lost count of
    return bool(readers)


def _dead_roots(group: Sequence[Member], needed: Mapping[nn.Module, Tensor], multiple: int) -> set[int]:
    """The group's numbers of the channels that go; at least one channel stays, and a multiple of ``multiple``."""
    roots: set[int] = set()
    live: set[int] = set()
    for member in group:
        if member.is_output:
            roots.update(member.roots)
        elif member.reads:
            for root, number in zip(member.roots, member.numbers, strict=True):
                if needed[member.module][number]:
                    live.add(root)
    if not live:
        live = {min(roots)}
    dead = roots - live
    missing = -(len(roots) - len(dead)) % multiple
    spared = sorted(dead)[:missing]
    return dead - set(spared)


def _depthwise(module: nn.Module) -> bool:
    return getattr(module, "groups", 1) > 1


def _moves_data(module: nn.Module) -> bool:
    """Torch-Pruning's stand-ins for operators without parameters."""
    return type(module).__module__.startswith("torch_pruning")


@torch.no_grad()
def _equal(model: nn.Module, removal: Removal, input_shape: Sequence[int]) -> bool:
    """Whether ``model`` computes the same without the channels, in double precision."""
    smaller = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *input_shape, generator=generator, dtype=torch.float64)
    images = images.to(next(smaller.parameters()).device)
    before = smaller(images)
    removal.attach(smaller)
    try:
        after = smaller(images)
    except RuntimeError:  # channels that the groups missed, padding of channels for one
        return False
    return bool((after - before).abs().max() <= TOLERANCE * before.abs().max())
