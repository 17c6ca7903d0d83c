"""Weights files: what trainers save is read as it was, and a file of another kind is one line."""

import argparse
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
from micronet_cli.models.safe_pickle import is_pickle
from micronet_cli.models.weights_file import holds_network, is_checkpoint, read_tensors, read_weights

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
