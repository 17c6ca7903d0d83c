"""Weights files as people have them: safetensors, PyTorch's own, and what trainers wrap around a state dict."""

import argparse
import datetime
import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from micronet_cli.errors import UserError
from micronet_cli.models.pickle_protocol import in_protocol_2

HEADER_KEY = "micronet"  # of a safetensors file's metadata: it is a checkpoint, which describes itself
PACKED_SUFFIX = ".mnet"
# Where trainers put a network's state dict, and that of its average.
TRAINED = ("state_dict", "model", "model_state_dict", "net")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
COUNT = "n_averaged"  # torch's AveragedModel counts in its state dict
COMPILED = "_orig_mod."  # torch.compile's, also of a part of a network
NUMBERS = "biufc"  # numpy's kinds


def numeric_dtype(*arguments: Any) -> np.dtype:
    """``numpy.dtype``, of numbers alone: objects that are made of a file's bytes would be pointers.

    Raises:
        pickle.UnpicklingError: it is of others.
    """
    dtype = np.dtype(*arguments)
    if dtype.kind not in NUMBERS:
        raise pickle.UnpicklingError(f"numpy.dtype({dtype})")
    return dtype


# What trainers put beside the weights: plain values, which run nothing when they are made.
DTYPE_CODES = "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
make_number = np.float64(0).__reduce__()[0]
make_array = np.zeros(0).__reduce__()[0]
PLAIN_VALUES = [
    argparse.Namespace,
    bytes,
    pathlib.PosixPath,
    datetime.datetime,
    datetime.timedelta,
    (numeric_dtype, "numpy.dtype"),
    *{type(np.dtype(code)) for code in DTYPE_CODES},
    (make_number, "numpy.core.multiarray.scalar"),
    (make_number, "numpy._core.multiarray.scalar"),
    np.ndarray,
    (make_array, "numpy.core.multiarray._reconstruct"),
    (make_array, "numpy._core.multiarray._reconstruct"),
]
ZIP = b"PK\x03\x04"
PICKLES = (ZIP, b"\x80\x02\x8a\n")  # of torch.save now, and of old
NOT_SAFE = "Weights only load failed"  # torch's unpickler met something that it does not do
EXECUTABLE = re.compile(r"GLOBAL ([\w.]+)")  # in the answer of torch's unpickler: what the file would call


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
        content = _read_pickle(path, named)
    else:
        content = read_tensors(path, where)
    ema_key = where.removesuffix("weights") + "ema"
    state = _state_dict(content, named, ema_key, ema)
    state.pop(COUNT, None)
    without_wrappers = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    return clean_state_dict(without_wrappers)


def read_tensors(path: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by the names that they have there.

    Raises:
        UserError: it is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise _unreadable(f"{where}={str(path)!r}", str(error)) from None


def is_pickle(path: Path) -> bool:
    """Whether the file begins as those of ``torch.save``, whatever its name is."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False  # who reads on says why
    return start in PICKLES


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


def _read_pickle(path: Path, named: str) -> Any:
    """What ``torch.save`` wrote, of tensors and plain values alone."""
    try:
        # A file object, as torch goes by names; its warnings advise on other ways to read.
        with path.open("rb") as file, torch.serialization.safe_globals(PLAIN_VALUES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(in_protocol_2(file), map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(named, error.strerror or "") from None
    except Exception as error:  # a broken pickle ends in any of them, and torch's texts have many lines
        reason = str(error)
    if "TorchScript" in reason:
        raise UserError(f"{named}: a TorchScript program, not a weights file; save its state_dict()")
    called = _called(path, reason)
    if called:
        raise UserError(
            f"{named}: would execute code ({called}), so it is not read; "
            "whoever trusts it can save its state dict alone: torch.save(model.state_dict(), FILE)"
        )
    raise _unreadable(named, "")


def _called(path: Path, reason: str) -> str:
    """What reading a pickle that torch refuses would call; empty where the pickle is broken."""
    content = path.read_bytes()
    zipped = content.startswith(ZIP)
    if zipped and _is_damaged(path):
        return ""
    known = EXECUTABLE.search(reason)
    if known:
        name = known[1]
        last_part = name.rpartition(".")[2]
        # A stream that was cut off may end within a name.
        is_whole = last_part and f"{last_part}\n".encode() in content
        return name if zipped or is_whole else ""
    if zipped and NOT_SAFE in reason:
        return "a pickle of operations that torch's safe unpickler does not know"
    return _looked_up(content)


def _is_damaged(path: Path) -> bool:
    """Whether a zip's contents are not those that its checksums were made of."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except Exception:  # of a damaged zip, as of a damaged pickle
        return True


def _looked_up(content: bytes) -> str:
    """The first function or class that a whole pickle of any protocol names; empty without one."""
    texts: list[str] = []
    found = ""
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in ("GLOBAL", "INST"):
                found = found or str(argument).replace(" ", ".")
            elif operation.name == "STACK_GLOBAL":
                found = found or ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:  # broken, or no pickle
        return ""
    return found


def _unreadable(named: str, reason: str) -> UserError:
    lines = reason.splitlines()
    given = f" ({lines[0][:150]})" if lines else ""
    return UserError(f"{named}: cannot be read, truncated or not a weights file{given}")


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
