"""Weights files: what trainers save is read as it was, nothing in a file runs, and a broken file is one line."""

import argparse
import datetime
import os
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.models.weights_file import holds_network, is_checkpoint, is_pickle, read_tensors, read_weights

WHERE = "model.weights"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return Model("resnet8").build(7)


@pytest.fixture(scope="module")
def averaged():
    torch.manual_seed(2)
    return Model("resnet8").build(7)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def lightning(state):
    """The keys of a checkpoint of Lightning 2, with what its callbacks and loops leave there."""
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(prefixed(state, "model.")) | {"criterion.weight": torch.ones(7)},
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'acc'}": {"best_model_score": torch.tensor(0.9), "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"last_epoch": 4}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "root": Path("/data")},
    }


def compiled_parts(state):
    return {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in state.items()}


FILES = {
    "plain": lambda state: state,
    "PyTorch's examples": lambda state: {"epoch": 3, "arch": "x", "state_dict": state, "best_acc1": torch.tensor(3.0)},
    "torchvision's": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "scaler": None},
    "PyTorch's tutorial": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "loss": 0.1},
    "net": lambda state: {"net": state, "acc": 93.0, "epoch": 1},
    "DataParallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled, then DistributedDataParallel": lambda state: prefixed(state, "module._orig_mod."),
    "a compiled part": compiled_parts,
    "Lightning's": lightning,
    "a network in a network": lambda state: prefixed(state, "net.backbone."),
    "a metric of numpy": lambda state: {"state_dict": state, "acc": np.float64(0.93), "n": np.float32(2)},
    "without counters": lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
}


def logits(model):
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_what_people_save_gives_the_logits_it_had(tmp_path, network, content):
    path = tmp_path / "w.pth"
    torch.save(content(network.state_dict()), path)
    assert torch.equal(logits(Model("resnet8", str(path)).build(7)), logits(network))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "net."])
def test_safetensors_of_wrapped_networks_give_the_logits_they_had(tmp_path, network, prefix):
    path = tmp_path / "w.safetensors"
    save_file(prefixed(network.state_dict(), prefix), path)
    assert torch.equal(logits(Model("resnet8", str(path)).build(7)), logits(network))


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_a_file_of_torch_is_one_by_its_content(tmp_path, network, name):
    path = tmp_path / name
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=name != "w.bin")
    assert is_pickle(path)
    assert torch.equal(logits(Model("resnet8", str(path)).build(7)), logits(network))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_other_precisions_become_float32(tmp_path, network, dtype, name):
    rounded = Model("resnet8").build(7)
    rounded.load_state_dict(network.state_dict())
    rounded.to(dtype)
    path = tmp_path / name
    save = save_file if name.endswith("safetensors") else torch.save
    save(rounded.state_dict(), path)
    read = Model("resnet8", str(path)).build(7)
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    assert torch.equal(logits(read), logits(rounded.float()))


@pytest.fixture
def timm_checkpoint(tmp_path, network, averaged):
    """The file that timm's trainer leaves, with momentum, arguments, a metric and an average."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    network.train()
    network(torch.zeros(2, 3, 32, 32)).sum().backward()
    network.eval()
    optimizer.step()
    optimizer.zero_grad()
    average = ModelEmaV3(averaged)
    arguments = argparse.Namespace(model="resnet8", lr=0.1, opt="sgd", mean=None)
    saver = CheckpointSaver(network, optimizer, arguments, average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(4, metric=np.float64(93.5))
    return tmp_path / "last.pth.tar"


def test_timm_s_trainer_s_checkpoint_is_read(timm_checkpoint, network, averaged):
    trained = Model("resnet8", str(timm_checkpoint)).build(7)
    average = Model("resnet8", str(timm_checkpoint), ema=True).build(7)
    assert torch.equal(logits(trained), logits(network))
    assert torch.equal(logits(average), logits(averaged))
    assert not torch.equal(logits(trained), logits(average))


def test_torchvision_s_average_is_read(tmp_path, network, averaged):
    content = {"model": network.state_dict(), "model_ema": AveragedModel(averaged).state_dict()}
    assert "n_averaged" in content["model_ema"]
    torch.save(content, tmp_path / "w.pth")
    assert torch.equal(logits(Model("resnet8", str(tmp_path / "w.pth"), ema=True).build(7)), logits(averaged))


def test_an_average_that_is_not_there_is_one_line(tmp_path, network):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": network.state_dict(), "state_dict_ema": None}, path)
    with pytest.raises(UserError) as caught:
        read_weights(path, "distill.teacher.weights", ema=True)
    assert str(caught.value) == (
        f"distill.teacher.ema=true: no averaged weights in distill.teacher.weights={str(path)!r}; leave it out"
    )


def test_an_average_alone_is_taken_where_it_is_asked_for(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict_ema": {"a": torch.eye(2)}}, path)
    with pytest.raises(UserError, match=r"holds averaged weights only; model\.ema=true takes them$"):
        read_weights(path, WHERE)
    assert read_weights(path, WHERE, ema=True)["a"].equal(torch.eye(2))


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


def test_a_safetensors_file_that_is_cut_off_is_one_line(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.eye(9)}, path)
    path.write_bytes(path.read_bytes()[:-3])
    for read in (read_weights, read_tensors):
        with pytest.raises(UserError, match=r"^model\.weights=.*: cannot be read, truncated or not a w[^\n]*\(.*\)$"):
            read(path, WHERE)


def test_a_missing_file_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^model\.weights=.*none\.pth': no such file$"):
        read_weights(tmp_path / "none.pth", WHERE)


FOREIGN = {
    "a list": ([1, 2], ""),
    "numbers": ({"a": 1}, "; it holds a"),
    "nothing": ({}, ""),
    "a text among tensors": ({"state_dict": {"a": torch.eye(2), "b": "text"}}, "; it holds state_dict"),
    "an optimiser's": (torch.optim.SGD([torch.ones(1)]).state_dict(), "; this is an optimiser's"),
    "a trainer's without weights": ({"optimizer": {"state": {}}, "epoch": 3}, "; it holds epoch, optimizer"),
}


@pytest.mark.parametrize(("content", "held"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_without_a_state_dict_is_one_line(tmp_path, content, held):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / "w.pth", WHERE)
    message = str(caught.value)
    assert message.endswith(f"': holds no state dict (name -> tensor, or that under 'state_dict'){held}")


def test_a_plain_state_dict_is_read_as_it_is(tmp_path):
    torch.save({"a.weight": torch.eye(2), "my.module.bias": torch.ones(3)}, tmp_path / "w.pth")
    assert list(read_weights(tmp_path / "w.pth", "x")) == ["a.weight", "my.module.bias"]


@pytest.fixture
def others(tmp_path):
    """Files and a directory that are more or other than weights."""
    (tmp_path / "run").mkdir()
    (tmp_path / "a.mnet").write_bytes(b"x")
    (tmp_path / "a.onnx").write_bytes(b"x")
    save_file({"a": torch.eye(2)}, tmp_path / "best.safetensors", metadata={"micronet": "{}"})
    save_file({"a": torch.eye(2)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    return tmp_path


KINDS = {
    "run": "a directory, not a weights file; init_from={} reads a run, checkpoint or .mnet",
    "a.mnet": "a packed network, not a weights file; init_from={} reads a run, checkpoint or .mnet",
    "best.safetensors": "a micronet checkpoint, not a weights file; init_from={} reads a run, checkpoint or .mnet",
    "a.onnx": "an ONNX file, which is not read; give the weights that it was exported from",
}


@pytest.mark.parametrize(("name", "said"), KINDS.items(), ids=KINDS.keys())
def test_another_kind_of_file_is_named_with_the_key_that_reads_it(others, name, said):
    path = others / name
    with pytest.raises(UserError) as caught:
        read_weights(path, WHERE)
    assert str(caught.value) == f"model.weights={str(path)!r}: {said.format(path)}"


def test_a_checkpoint_is_told_from_weights(others):
    assert [path.name for path in sorted(others.iterdir()) if is_checkpoint(path)] == ["best.safetensors"]
    assert [path.name for path in sorted(others.iterdir()) if holds_network(path)] == [
        "a.mnet", "best.safetensors", "run",
    ]  # fmt: skip
    assert not is_pickle(others / "w.safetensors")
    assert not is_pickle(others / "nowhere")
