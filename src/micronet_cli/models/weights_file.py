"""Weights files: safetensors, .pth, .pth.tar."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from micronet_cli.errors import UserError


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """Parameter name -> tensor, on the CPU.

    A ``state_dict`` entry is unwrapped and a ``module.`` prefix stripped. Nothing in a file can run code.

    Raises:
        UserError: the file is missing or unreadable; ``where`` is its place in the config.
    """
    if not path.is_file():
        raise UserError(f"{where}={str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, where, error) from None
    except Exception as error:  # pickle's own errors share no narrower base class
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _unreadable(path, where, error) from None
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not _is_state_dict(state):
        raise UserError(f"{where}={str(path)!r}: holds no state dict (name -> tensor, or that under 'state_dict')")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _is_state_dict(state: Any) -> bool:
    if not isinstance(state, dict):
        return False
    return all(isinstance(value, Tensor) for value in state.values())


def load_strict(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load ``state`` into ``model``; nothing may be missing, left over or of another shape.

    Raises:
        UserError: the report of what does not fit.
    """
    own = model.state_dict()
    other_shapes = []
    for name in own.keys() & state.keys():
        given = _shape(state[name])
        needed = _shape(own[name])
        if given != needed:
            other_shapes.append(f"{name} ({given} in the file, {needed} in the network)")
    problems = [
        _listed("missing", own.keys() - state.keys()),
        _listed("unexpected", state.keys() - own.keys()),
        _listed("of another shape", other_shapes),
    ]
    found = [problem for problem in problems if problem]
    if found:
        way_out = other_head(own, state)
        raise UserError(f"{where}: the weights do not fit the network: {'; '.join(found)}{way_out}")
    model.load_state_dict(state)


def other_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The way out where the weights are those of ``own`` but for the number of classes; else nothing."""
    if own.keys() != state.keys():
        return ""
    heads = set()
    for name, tensor in own.items():
        given = tuple(state[name].shape)
        needed = tuple(tensor.shape)
        if given == needed:
            continue
        if not given or not needed or given[1:] != needed[1:]:
            return ""
        heads.add(given[0])
    if len(heads) != 1:
        return ""
    return f"; data.classes=imagenet, or a file with a name a line, keeps a head of {heads.pop()} classes"


def _unreadable(path: Path, where: str, error: Exception) -> UserError:
    lines = str(error).splitlines()
    reason = lines[0][:150] if lines else type(error).__name__
    return UserError(f"{where}={str(path)!r}: cannot be read, truncated or not a weights file ({reason})")


def _shape(tensor: Tensor) -> str:
    sizes = [str(size) for size in tensor.shape]
    return "x".join(sizes) or "scalar"


def _listed(what: str, names: Iterable[str]) -> str:
    found = sorted(names)
    if not found:
        return ""
    text = f"{len(found)} {what}: {', '.join(found[:3])}"
    hidden = len(found) - 3
    return f"{text} and {hidden} more" if hidden > 0 else text
