"""What ``torch.save`` wrote is read without running it: code is named, plain values pass, a broken file is one line."""

import argparse
import datetime
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from micronet_cli.errors import UserError
from micronet_cli.models.safe_pickle import is_pickle
from micronet_cli.models.weights_file import read_weights

WHERE = "model.weights"


class Executing:
    """What calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


CALLS = {
    "a shell": (lambda touched: Executing(os.system, f"touch {touched}"), r"\w+\.system"),
    "a file": (lambda touched: Executing(open, str(touched), "w"), r"[\w.]*open"),
    "an expression": (lambda touched: Executing(eval, f"open({str(touched)!r}, 'w')"), r"[\w.]*eval"),
    "a whole network": (
        lambda touched: torch.nn.Linear(2, 1),
        r"torch\.nn\.modules\.linear\.Linear|copy_reg\._reconstructor",
    ),
}


STORED = {"zip": 2, "zip of now": 4, "old torch": 2, "pickle": 2, "pickle of text": 0, "pickle of now": 4}


@pytest.mark.parametrize("stored_as", STORED)
@pytest.mark.parametrize(("call", "name"), CALLS.values(), ids=CALLS.keys())
def test_code_in_a_file_is_named_and_not_run(tmp_path, call, name, stored_as):
    touched = tmp_path / "touched"
    content = {"state_dict": {"x": torch.eye(2)}, "args": call(touched)}
    path = tmp_path / "evil.pth"
    if stored_as.startswith("pickle"):
        path.write_bytes(pickle.dumps({"args": call(touched)}, protocol=STORED[stored_as]))
    else:
        zipped = stored_as.startswith("zip")
        torch.save(content, path, pickle_protocol=STORED[stored_as], _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"': would execute code \({name}\), so it is not read; [^\n\x1b]*$"):
        read_weights(path, WHERE)
    assert not touched.exists()


def test_operations_that_are_not_read_safely_are_told_and_not_run(tmp_path):
    touched = tmp_path / "touched"
    path = tmp_path / "evil.pth"
    torch.save({"set": {1, 2}, "args": Executing(open, str(touched), "w")}, path, pickle_protocol=4)
    said = "would execute code (a pickle of operations that torch's safe unpickler does not know), so it is not read; "
    with pytest.raises(UserError, match=re.escape(said)):
        read_weights(path, WHERE)
    assert not touched.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_data_of_a_later_protocol_is_read(tmp_path, protocol):
    path = tmp_path / "w.pth"
    content = {"state_dict": {"a.weight": torch.eye(3)}, "args": argparse.Namespace(lr=0.1), "key": b"\xff"}
    torch.save(content, path, pickle_protocol=protocol)
    assert read_weights(path, WHERE)["a.weight"].equal(torch.eye(3))


BESIDE = {
    "numpy's random state": np.random.RandomState(0).get_state(),
    "arrays": [np.arange(3.0), np.eye(2, dtype=np.float16), np.array(7, dtype=np.uint8), np.ones((2, 0), bool)],
    "a number": np.float32(1.5),
    "a time": datetime.datetime(2026, 1, 1),
    "a namespace": argparse.Namespace(lr=0.1, path=Path("runs")),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE.keys())
def test_plain_values_beside_the_weights_do_no_harm(tmp_path, value, protocol):
    torch.save({"state_dict": {"a": torch.eye(2)}, "extra": value}, tmp_path / "w.pth", pickle_protocol=protocol)
    assert read_weights(tmp_path / "w.pth", WHERE)["a"].equal(torch.eye(2))


OBJECTS = {
    "an array of objects": np.array([{}, None], dtype=object),
    "bytes as an object": Executing(np.float64(0).__reduce__()[0], np.dtype("O"), b"\x08" * 8),
    "a record": np.zeros(2, [("a", "O")]),
}


@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS.keys())
def test_arrays_of_objects_are_not_made(tmp_path, value):
    torch.save({"state_dict": {"a": torch.eye(2)}, "extra": value}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"would execute code \([^\n]*\), so it is not read; [^\n\x1b]*$"):
        read_weights(tmp_path / "w.pth", WHERE)


def test_a_torchscript_program_is_named(tmp_path):
    path = tmp_path / "w.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2)), path)
    with pytest.raises(UserError, match=r"': a TorchScript program, not a weights file; [^\n\x1b]*$"):
        read_weights(path, WHERE)


def broken(content: bytes) -> list[bytes]:
    """Cut off at many places, and with bytes that are others."""
    step = len(content) // 40
    cut = [content[:length] for length in range(1, len(content), step)]
    return [*cut, content[:40] + bytes(20) + content[60:200], content[:2] + b"\xff" * 30]


UNREADABLE = r"^model\.weights='[^\n\x1b]*': cannot be read, truncated or not a weights file[^\n\x1b]*$"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old torch"])
def test_broken_files_are_one_line(tmp_path, suffix, zipped):
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": {"a.weight": torch.eye(9)}}, whole, _use_new_zipfile_serialization=zipped)
    path = tmp_path / f"broken.{suffix}"
    for content in (b"", b"garbage", b"PK\x03\x04broken", *broken(whole.read_bytes())):
        path.write_bytes(content)
        with pytest.raises(UserError, match=UNREADABLE):
            read_weights(path, WHERE)


def test_a_damaged_name_in_a_zip_is_no_code(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a.weight": torch.eye(9)}, path)
    whole = path.read_bytes()
    assert whole.count(b"_rebuild_tensor_v2") == 1
    path.write_bytes(whole.replace(b"_rebuild_tensor_v2", b"_rebuilD_tensor_v2"))
    with pytest.raises(UserError, match=UNREADABLE):
        read_weights(path, WHERE)


def test_a_missing_file_is_no_pickle(tmp_path):
    assert not is_pickle(tmp_path / "none.pth")
