"""Weights files as people have them: safetensors, PyTorch's own, and what trainers wrap around a state dict."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from micronet_cli.errors import UserError
from micronet_cli.models.safe_pickle import is_pickle, read_pickle, unreadable

HEADER_KEY = "micronet"  # of a safetensors file's metadata: it is a checkpoint, which describes itself
PACKED_SUFFIX = ".mnet"
# Where trainers put a network's state dict, and that of its average.
TRAINED = ("state_dict", "model", "model_state_dict", "net")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
COUNT = "n_averaged"  # torch's AveragedModel counts in its state dict
COMPILED = "_orig_mod."  # torch.compile's, also of a part of a network


def read_weights(path: Path, where: str, ema: bool = False) -> dict[str, Tensor]:
    """Parameter name -> tensor, on the CPU, without what wrappers put before names.

    Nothing in a file can run code.

    Args:
        path: the file.
        where: its place in the config, which mistakes are named by.
        ema: take the averaged weights.

    Raises:
        UserError: the file is missing or unreadable, or has no such weights.
    """
    named = f"{where}={str(path)!r}"
    _refuse_other_kinds(path, named)
    if is_pickle(path) or path.suffix != ".safetensors":
        content = read_pickle(path, named)
    else:
        content = read_tensors(path, where)
    ema_key = where.removesuffix("weights") + "ema"
    state = _state_dict(content, named, ema_key, ema)
    state.pop(COUNT, None)
    without_wrappers = {}
    for name, tensor in state.items():
        plain_name = name.replace(COMPILED, "")
        without_wrappers[plain_name] = tensor
    return clean_state_dict(without_wrappers)


def read_tensors(path: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by the names that they have there.

    Raises:
        UserError: it is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise unreadable(f"{where}={str(path)!r}", str(error)) from None


def is_checkpoint(path: Path) -> bool:
    """Whether the file describes itself, as the checkpoints of runs do."""
    try:
        with safe_open(path, "pt") as opened:
            return HEADER_KEY in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def holds_network(path: Path) -> bool:
    """Whether it is a run directory, a checkpoint or a packed file: more than weights."""
    return path.is_dir() or path.suffix == PACKED_SUFFIX or is_checkpoint(path)


def _refuse_other_kinds(path: Path, named: str) -> None:
    """Raises UserError where it is no file, or another kind of file."""
    kind = ""
    if path.is_dir():
        kind = "a directory"
    elif not path.is_file():
        raise UserError(f"{named}: no such file")
    elif path.suffix == PACKED_SUFFIX:
        kind = "a packed network"
    elif is_checkpoint(path):
        kind = "a micronet checkpoint"
    elif path.suffix == ".onnx":
        raise UserError(f"{named}: an ONNX file, which is not read; give the weights that it was exported from")
    if kind:
        raise UserError(f"{named}: {kind}, not a weights file; init_from={path} reads a run, checkpoint or .mnet")


def _state_dict(content: Any, named: str, ema_key: str, ema: bool) -> dict[str, Tensor]:
    """The state dict in what a trainer saved."""
    if ema:
        averaged = _entry(content, AVERAGED)
        if averaged is None:
            raise UserError(f"{ema_key}=true: no averaged weights in {named}; leave it out")
        return averaged
    state = _entry(content, TRAINED)
    if state is None and _is_state_dict(content):
        state = dict(content)
    if state is None and _entry(content, AVERAGED) is not None:
        raise UserError(f"{named}: holds averaged weights only; {ema_key}=true takes them")
    if state is None:
        raise UserError(f"{named}: holds no state dict (name -> tensor, or that under 'state_dict'){_held(content)}")
    return state


def _entry(content: Any, keys: Iterable[str]) -> dict[str, Tensor] | None:
    """The first entry that is a state dict."""
    if not isinstance(content, Mapping):
        return None
    for key in keys:
        if _is_state_dict(content.get(key)):
            return dict(content[key])
    return None


def _is_state_dict(state: Any) -> bool:
    if not isinstance(state, Mapping) or not state:
        return False
    return all(isinstance(value, Tensor) for value in state.values())


def _held(content: Any) -> str:
    """What there is instead."""
    if not isinstance(content, Mapping) or not content:
        return ""
    if {"state", "param_groups"} <= content.keys():
        return "; this is an optimiser's"
    names = sorted(str(key) for key in content)
    shown = ", ".join(names[:5])
    return f"; it holds {shown}"[:150]
