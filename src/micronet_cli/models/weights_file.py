"""Weights files: safetensors, .pth, .pth.tar."""

from collections.abc import Iterable
from pathlib import Path

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
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{where}={str(path)!r}: holds no state dict (name -> tensor, or that under 'state_dict')")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_strict(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load ``state`` into ``model``; nothing may be missing, left over or of another shape.

    Raises:
        UserError: the report of what does not fit.
    """
    own = model.state_dict()
    problems = [
        _listed("missing", own.keys() - state.keys()),
        _listed("unexpected", state.keys() - own.keys()),
        _listed(
            "of another shape",
            (
                f"{name} ({_shape(state[name])} in the file, {_shape(own[name])} in the network)"
                for name in own.keys() & state.keys()
                if own[name].shape != state[name].shape
            ),
        ),
    ]
    if found := [p for p in problems if p]:
        raise UserError(f"{where}: the weights do not fit the network: " + "; ".join(found))
    model.load_state_dict(state)


def _unreadable(path: Path, where: str, error: Exception) -> UserError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{where}={str(path)!r}: cannot be read, truncated or not a weights file ({first_line[:150]})")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(what: str, names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{len(found)} {what}: {', '.join(found[:3])}{more}" if found else ""
