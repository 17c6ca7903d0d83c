"""A live network with its description: what a file must say so that it can be built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli import checkpoint
from micronet_cli.config import packages_named
from micronet_cli.dotted_path import checked_trust
from micronet_cli.layers.copies import copied
from micronet_cli.layers.rules import stated_shape
from micronet_cli.models.model import InputSpec, Model, state_input
from micronet_cli.models.record import class_names, config_of
from micronet_cli.network import Network
from micronet_cli.torch_internals import uncompiled

# Of the largest logit: the same tensors in the same operations give the same numbers but for their order.
TOLERANCE = 1e-4
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
WAY_OUT = (
    "name and args must be those that model was built with, compressors all that are attached to it, in that order"
)


def described(
    model: nn.Module,
    *,
    init_from: str | None = None,
    trust: Sequence[str] = (),
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Network:
    """A copy of ``model`` on the CPU, in evaluation mode, with its description; arguments as of ``library.save``.

    Raises:
        ValueError: the description is not that of ``model``.
        UserError: ``init_from`` is no network, or names what is not trusted.
    """
    copy = copied(unwrapped(model)).cpu().float().eval()
    copy = copy.to(memory_format=torch.contiguous_format)
    if init_from is None:
        network = _of_live(copy, name, args, input_shape)
    else:
        trusted = checked_trust(trust)
        start = checkpoint.load(init_from, trust=trusted)
        network = replace(start, model=copy, metrics={}, packed=None, trust=trusted)
        if input_shape:
            channels, height, width = input_shape
            network.run_with(replace(network.spec, size=(channels, height, width)))
    outputs = _outputs(network)
    network.classes = list(classes or network.classes or _numbers(outputs))
    if len(network.classes) != outputs:
        raise ValueError(f"classes: there are {len(network.classes)} names, and the network has {outputs} outputs")
    return network


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, without what compiles it or spreads it over devices."""
    model = uncompiled(model)
    while isinstance(model, WRAPPERS):
        model = uncompiled(model.module)
    return model


def _of_live(
    model: nn.Module, name: str | None, args: Mapping[str, Any] | None, input_shape: Sequence[int] | None
) -> Network:
    state_input(model, known_shape(model, input_shape))
    config = config_of(model, name, args)
    trust = packages_named(config, "model", Model)
    return Network(model, config, class_names(model), InputSpec.of(model), trust=trust)


def known_shape(model: nn.Module, given: Sequence[int] | None) -> Sequence[int]:
    """The input (channels, height, width) that is ``given``, else what the network states.

    Raises:
        ValueError: neither is.
    """
    shape = given or stated_shape(model)
    if shape is None:
        raise ValueError("input_shape=None: the network states none; must be (channels, height, width)")
    return shape


def example(network: Network) -> Tensor:
    """Two random images, the same ones every time, ``[2, C, H, W]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *network.spec.size, generator=generator)


@torch.no_grad()
def check_equal(network: Network, loaded: nn.Module) -> None:
    """Raises ValueError where what was loaded computes something else than what was saved."""
    images = example(network)
    expected = network.model(images)
    found = loaded(images)
    deviation = (found - expected).abs().max()
    largest = expected.abs().max()
    if not deviation <= TOLERANCE * largest:
        raise ValueError(
            f"the file's network computes something else (logits of up to {largest:.3g} differ by {deviation:.3g}); "
            f"{WAY_OUT}"
        )


@torch.no_grad()
def _outputs(network: Network) -> int:
    """How many logits an image has.

    Raises:
        ValueError: it has none, or the network does not take it.
    """
    try:
        logits = network.model(example(network))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"input_shape={network.spec.size}: the network does not take it ({reason})") from None
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2:
        raise ValueError(f"model: it answers two images with {list(shape) or type(logits).__name__}; must be logits")
    return shape[1]


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]
