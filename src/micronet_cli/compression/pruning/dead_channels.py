"""Which channels of a network are computed for nothing: zero for every image, or read by nobody.

Layers that share a channel (residual sums, depthwise convolutions, gates) are Torch-Pruning's dependency groups (Fang
et al., arXiv 2301.12900). A channel of a group goes where no reader of the group needs it.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
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
        multiple: of channels that stay in each group, dead ones among them. Blocked kernels want 8 or 16, and are
            slower on fewer channels that are none.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: it cannot follow the network.
    """
    twin = plain_copy(model)
    names = {module: name for name, module in twin.named_modules()}
    needed = needed_inputs(twin, input_shape)
    parts = []
    for group in groups(twin, input_shape):
        outputs, inputs = (
            {names[m]: gone for m, gone in side.items()} for side in dead_in_group(group, needed, multiple)
        )
        if outputs:
            parts.append(Removal(outputs, inputs))
    return _all_that_hold(model, parts, input_shape)


def _all_that_hold(model: nn.Module, parts: Sequence[Removal], input_shape: Sequence[int]) -> Removal:
    """Everything where the outputs stay; else each part that leaves them so on top of those before it."""
    if _equal(model, whole := _joined(parts), input_shape):
        return whole
    kept: list[Removal] = []
    for part in parts:
        if _equal(model, _joined([*kept, part]), input_shape):
            kept.append(part)
    return _joined(kept)


def _joined(parts: Sequence[Removal]) -> Removal:
    # A group holds all of a channel's layers, so no two groups name the same side of a layer.
    outputs = {name: gone for part in parts for name, gone in part.outputs.items()}
    return Removal(outputs, {name: gone for part in parts for name, gone in part.inputs.items()})


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
    for parameter in positive.parameters():
        live = (parameter != 0).to(parameter.dtype)
        values = (0.5 + torch.rand_like(live)) * live
        if live.dim() > 1:  # rows of mean about 1, so that nothing grows or shrinks from layer to layer
            values /= live.flatten(1).sum(1).clamp_min(1).view(-1, *(1,) * (live.dim() - 1))
        parameter.copy_(values)
    for norm in positive.modules():
        if isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.reset_running_stats()
    seen: dict[str, Tensor] = {}

    def look(name: str, dim: int) -> object:
        def hook(layer: nn.Module, inputs: tuple) -> None:
            x = inputs[0].movedim(dim, 0)
            seen[name] = seen.get(name, torch.zeros(len(x), dtype=torch.bool)) | (x != 0).flatten(1).any(1)

        return hook

    for name, layer in compressible_layers(positive).items():
        layer.register_forward_pre_hook(look(name, -1 if isinstance(layer, nn.Linear) else 1))
    positive(0.5 + torch.rand(2, *input_shape))
    needed = {}
    for name, layer in compressible_layers(twin).items():
        if name in seen:
            read = (layer.weight != 0).transpose(0, 1).flatten(1).any(1)
            # Groups of several channels, or of one, share their weights' second dimension.
            needed[layer] = seen[name] & read if len(read) == len(seen[name]) else seen[name]
    return needed


def groups(twin: nn.Module, input_shape: Sequence[int]) -> Iterator[list]:
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
                yield [_entry(graph, item) for item in group]
        except Exception as error:  # its errors on networks that it was not written for are of any kind
            what = f"{type(error).__name__}: {str(error)[:100]}"
            raise ValueError(f"torch-pruning cannot follow this network ({what})") from None


def _entry(graph: Any, item: Any) -> tuple[nn.Module, bool, list[int], list[int]]:
    """(module, whether its outputs are meant, the root's channel numbers, the module's own ones)."""
    is_output = graph.is_out_channel_pruning_fn(item.dep.handler)
    return item.dep.target.module, is_output, item.root_idxs, item.idxs


def dead_in_group(
    group: list, needed: dict[nn.Module, Tensor], multiple: int = 1
) -> tuple[dict[nn.Module, list[int]], dict[nn.Module, list[int]]]:
    """Layer -> output channels, and layer -> input channels, that nobody in the group needs; empty for none."""
    live: set[int] = set()
    roots: set[int] = set()
    readers = 0
    for module, is_output, root_numbers, numbers in group:
        if not (isinstance(module, nn.Conv2d | nn.Linear | BatchNorm) or _moves_data(module)):
            return {}, {}  # a LayerNorm, say: its statistics are over the channels
        if is_output:
            roots |= set(root_numbers)
        if isinstance(module, nn.Conv2d | nn.Linear) and not is_output:
            if getattr(module, "groups", 1) != 1:
                return {}, {}
            if module not in needed or max(numbers) >= len(needed[module]):
                return {}, {}  # executed by another module, or with channels that Torch-Pruning lost count of
            readers += 1
            live |= {root for root, number in zip(root_numbers, numbers, strict=True) if needed[module][number]}
    dead = roots - (live or {min(roots)})
    spared = min(-(len(roots) - len(dead)) % multiple, len(dead))
    dead -= set(sorted(dead)[:spared])
    if not readers or not dead:
        return {}, {}
    outputs: dict[nn.Module, list[int]] = {}
    inputs: dict[nn.Module, list[int]] = {}
    for module, is_output, root_numbers, numbers in group:
        if not _moves_data(module):
            gone = [number for root, number in zip(root_numbers, numbers, strict=True) if root in dead]
            side = outputs if is_output else inputs
            side[module] = sorted({*side.get(module, []), *gone})
    return outputs, {module: gone for module, gone in inputs.items() if not _depthwise(module)}


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
