"""The header's network, input and data: checked, and built within bounds, only by timm's constructors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from micronet_cli.artifact.entries import check, is_count
from micronet_cli.artifact.format import Damaged
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.errors import UserError
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.torch_internals import BatchNorm

MODEL = "micronet_cli.models.model.Model"
DATA = "micronet_cli.data."
MAX_ELEMENTS_A_BYTE = 256  # of the network over the file's size
FREE_ELEMENTS = 1 << 28  # of any network: one that lost most channels is built before they are taken out
MAX_ARGUMENT = 1 << 16
# Arguments of timm.create_model that read files or the network.
FORBIDDEN = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def most_elements(file_bytes: int) -> int:
    """Elements of the largest network that a file of this size is trusted with.

    >>> most_elements(1000) == FREE_ELEMENTS, most_elements(1 << 22)
    (True, 1073741824)
    """
    return max(FREE_ELEMENTS, int(MAX_ELEMENTS_A_BYTE * file_bytes))


def bare_network(header: Mapping[str, Any], tensors: int | None = None, elements: int | None = None) -> nn.Module:
    """The network of ``header["model"]`` without values: on the meta device, not yet loaded or changed.

    Args:
        header: as in a file.
        tensors: the most parameters and buffers it may have, None: any number.
        elements: the most elements in them.

    Raises:
        Damaged: the header names none, another kind of thing, or a larger one.
    """
    model = described(header)
    with torch.device("meta"), _bounded(tensors, elements):
        return built(model, header)


def built(model: Model, header: Mapping[str, Any]) -> nn.Module:
    """The network with random values, where the default device is.

    Raises:
        Damaged: timm does not take the arguments.
    """
    try:
        network = model.build(len(header["classes"]))
    except Damaged:
        raise
    except Exception as error:  # whatever arguments from a file do to a constructor
        raise Damaged(f"header: model: {model.name} cannot be built ({str(error)[:200]})") from None
    _take_out(network, header.get("channels", []))
    return network


def _take_out(model: nn.Module, removals: Any) -> None:
    """Take out the channels that the packed network did without.

    Raises:
        Damaged: the network has no such layer, or the layer no such channels.
    """
    check(isinstance(removals, list), "channels: a list is wanted")
    for removal in removals:
        known = isinstance(removal, dict) and set(removal) == {"outputs", "inputs"}
        check(
            known and all(isinstance(part, dict) for part in removal.values()), "channels: other fields than a removal"
        )
        layers = set(compressible_layers(model)) | {n for n, m in model.named_modules() if isinstance(m, BatchNorm)}
        for layer, gone in [pair for part in removal.values() for pair in part.items()]:
            check(layer in layers, f"channels: {layer!r:.80} is no layer of the network")
            check(
                isinstance(gone, list) and all(map(is_count, gone)), f"channels: {layer!r:.80}: not numbers of channels"
            )
        try:
            Removal(**removal).attach(model)
        except (ValueError, AttributeError, TypeError, LookupError, RuntimeError) as error:
            raise Damaged(f"header: channels: {str(error)[:200]}") from None


def described(header: Mapping[str, Any]) -> Model:
    """The header's model, checked.

    Raises:
        Damaged: what is wrong with it.
    """
    config: Any = header.get("model")
    check(isinstance(config, dict), "model: a config is wanted")
    known = {"_target_", "name", "args", "num_classes", "weights", "pretrained"}
    name, args, classes = config.get("name"), config.get("args"), header.get("classes")
    check(config.get("_target_") == MODEL and set(config) <= known, f"model: only {MODEL} and its own keys are allowed")
    check(isinstance(name, str) and ":" not in name, "model.name: a name that timm knows itself is wanted")
    check(not config.get("weights") and not config.get("pretrained"), "model: weights are in the file itself")
    check(args is None or isinstance(args, dict), "model.args: keys and values are wanted")
    for key, value in (args or {}).items():
        check(key not in FORBIDDEN and _harmless(value), f"model.args.{key:.80}: not allowed in a file")
    check(isinstance(classes, list) and all(isinstance(c, str) for c in classes), "classes: names are wanted")
    count = config.get("num_classes")
    check(count is None or is_count(count), "model.num_classes: a count or null is wanted")
    check(not classes or count in (None, len(classes)), "model.num_classes: another number than there are classes")
    try:
        return Model(name, num_classes=count, args=args)
    except (UserError, ValueError) as error:
        raise Damaged(f"header: {str(error)[:200]}") from None


def _harmless(value: Any) -> bool:
    """Whether a constructor's argument is a small plain value."""
    if isinstance(value, list):
        return len(value) <= 64 and all(_harmless(item) for item in value)
    if isinstance(value, str):
        return len(value) <= 64 and not set(value) & set("/\\:")
    return value is None or (isinstance(value, bool | int | float) and abs(value) <= MAX_ARGUMENT)


def check_header(header: Mapping[str, Any]) -> None:
    """Raises Damaged unless input and data are what later code may rely on."""
    described(header)
    try:
        spec = InputSpec.from_dict(header["input"])
    except (TypeError, KeyError, AttributeError):
        raise Damaged("header: input: not an input") from None
    size, mean, std = spec.size, _listed(spec.mean), _listed(spec.std)
    check(isinstance(size, tuple) and len(size) == 3 and all(is_count(n, 1, 1 << 14) for n in size), "input.size")
    check(
        len(mean) == len(std) == size[0]
        and all(isinstance(v, int | float) and abs(v) <= MAX_ARGUMENT for v in (*mean, *std))
        and min(std) > 0,
        "input.mean, input.std",
    )
    check(isinstance(spec.interpolation, str) and isinstance(spec.crop_mode, str), "input: names are wanted")
    check(isinstance(spec.crop_pct, int | float) and 0 < spec.crop_pct <= 16, "input.crop_pct")
    data = header.get("data")
    check(isinstance(data, dict), "data: a config is wanted")
    for target in _targets(data, 0):
        check(isinstance(target, str) and target.startswith(DATA), f"data: {target!r:.80} is not allowed in a file")


def _listed(value: Any) -> Any:
    return value if isinstance(value, tuple) else [None]


def _targets(node: Any, depth: int) -> list[Any]:
    """Every ``_target_`` in a config."""
    check(depth < 16, "data: nested too deeply")
    if isinstance(node, list):
        return [t for item in node for t in _targets(item, depth + 1)]
    if not isinstance(node, dict):
        return []
    return [t for k, v in node.items() for t in ([v] if k == "_target_" else _targets(v, depth + 1))]


@contextmanager
def _bounded(tensors: int | None, elements: int | None) -> Iterator[None]:
    """Stop a constructor that registers more than this."""
    seen = [0, 0]

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is not None:
            seen[0] += 1
            seen[1] += tensor.numel()
        if (tensors is not None and seen[0] > tensors) or (elements is not None and seen[1] > elements):
            raise Damaged("header: model: a far larger network than the file holds")

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
