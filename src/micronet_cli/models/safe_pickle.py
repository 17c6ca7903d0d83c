"""Pickles of ``torch.save``, read so that nothing in them runs: tensors and plain values alone."""

import argparse
import datetime
import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micronet_cli.errors import UserError
from micronet_cli.models.pickle_protocol import in_protocol_2

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


def is_pickle(path: Path) -> bool:
    """Whether the file begins as those of ``torch.save``, whatever its name is."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False  # who reads on says why
    return start in PICKLES


def read_pickle(path: Path, named: str) -> Any:
    """What ``torch.save`` wrote, of tensors and plain values alone.

    Args:
        path: the file.
        named: the file and its place in the config, which mistakes begin with.

    Raises:
        UserError: it is broken, or reading it would execute code.
    """
    try:
        # A file object, as torch goes by names; its warnings advise on other ways to read.
        with path.open("rb") as file, torch.serialization.safe_globals(PLAIN_VALUES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(in_protocol_2(file), map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(named, error.strerror or "") from None
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
    raise unreadable(named, "")


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


def unreadable(named: str, reason: str) -> UserError:
    """What to raise of a broken file; of ``reason``, which may be empty, the first line is told."""
    lines = reason.splitlines()
    given = f" ({lines[0][:150]})" if lines else ""
    return UserError(f"{named}: cannot be read, truncated or not a weights file{given}")
