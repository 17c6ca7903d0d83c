"""Checkpoints: what comes back, and what a damaged or foreign file is answered with."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import micronet_cli
from micronet_cli import checkpoint
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.models import cifar_resnet  # noqa: F401
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network

MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}
PRUNE = {
    "_target_": "micronet_cli.compression.pruning.pruner.Pruner",
    "rules": {"all": {"match": "(?!{stem}$).*", "sparsity": 0.5}},
}
QUANTIZE = {
    "_target_": "micronet_cli.compression.quantization.quantizer.Quantizer",
    "rules": {"all": {"match": "(?!{stem}$).*"}},
}
CLASSES = ["a", "b", "c"]


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet8", num_classes=3)
    for config in (QUANTIZE, PRUNE):
        compressor = build(config, "c")
        compressor.attach(model)
        compressor.update(1, 1)
    model.train()(torch.randn(16, 3, 32, 32))
    network = Network(model.eval(), MODEL, CLASSES, InputSpec.of(model), [QUANTIZE, PRUNE])
    checkpoint.save(tmp_path / "n.safetensors", network, {"top1": 50.0})
    return network, tmp_path / "n.safetensors"


def rewrite(path, change):
    with safe_open(path, "pt") as opened:
        header = json.loads(opened.metadata()["micronet"])
    change(header)
    save_file(load_file(path), path, metadata={"micronet": json.dumps(header)})


def test_save_load_gives_equal_logits(saved):
    network, path = saved
    images = torch.randn(4, 3, 32, 32)
    loaded = micronet_cli.load(str(path))
    with torch.no_grad():
        assert torch.equal(loaded(images), network.model(images))
    assert not loaded.training


def test_another_model_that_the_compressors_do_not_fit_is_answered(saved):
    rewrite(saved[1], lambda header: header["compressors"][1]["rules"]["all"].update(match="layer9"))
    with pytest.raises(UserError, match=r"its compressors do not fit model=resnet8 \(.*matches no layer"):
        checkpoint.load(str(saved[1]))


def test_directory_without_a_network_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoints/best.safetensors in it; finish the run"):
        checkpoint.resolve(str(tmp_path))


def test_masks_and_observers_come_back(saved):
    network, path = saved
    loaded = checkpoint.load(str(path))
    assert loaded.classes == CLASSES
    layers = [n.model.layer2[0].conv1 for n in (network, loaded)]
    assert torch.equal(*(effective_weight(layer).mask for layer in layers))
    assert layers[0].input_fake_quantize.high == layers[1].input_fake_quantize.high > 0


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_truncation_is_one_error(saved, size):
    _, path = saved
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="truncated"):
        checkpoint.load(str(path))


def test_plain_weights_are_not_a_checkpoint(saved):
    _, path = saved
    save_file(load_file(path), path)
    with pytest.raises(UserError, match=r"model\.weights"):
        checkpoint.load(str(path))


def test_newer_format_is_refused(saved):
    _, path = saved
    rewrite(path, lambda header: header.update(format_version=99))
    with pytest.raises(UserError, match="format 99 is newer"):
        checkpoint.load(str(path))


@pytest.mark.parametrize(
    "target", ["os.system", "micronet_cli.runs.directory.os.system", "micronet_cli.runs.directory.os"]
)
def test_code_named_in_a_header_is_refused(saved, tmp_path, target):
    _, path = saved
    command = f"touch {tmp_path / 'executed'}"
    rewrite(path, lambda header: header["compressors"].append({"_target_": target, "command": command}))
    with pytest.raises(UserError, match="not allowed in a file"):
        checkpoint.load(str(path))
    assert not (tmp_path / "executed").exists()


def test_missing_tensor_is_reported(saved):
    _, path = saved
    rewrite(path, lambda header: header["compressors"].pop())
    with pytest.raises(UserError, match="unexpected"):
        checkpoint.load(str(path))


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    network, path = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, network, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_directorys_best_network_comes_before_its_packed_one(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model.mnet").write_bytes(b"")
    assert checkpoint.resolve(str(tmp_path)).name == "model.mnet"
    (tmp_path / "checkpoints" / "best.safetensors").write_bytes(b"")
    assert checkpoint.resolve(str(tmp_path)).name == "best.safetensors"


def test_a_missing_file_is_named_with_its_key():
    with pytest.raises(UserError, match="x='/nowhere': no such file or directory"):
        checkpoint.resolve("/nowhere", "x")


def test_a_header_holds_what_was_saved(saved):
    network, path = saved
    header = checkpoint.read_header(path)
    assert header["format_version"] == checkpoint.FORMAT_VERSION
    assert header["compressors"] == network.compressors
    assert header["metrics"] == {"top1": 50.0}


def test_another_model_config_takes_the_headers_place(saved):
    assert checkpoint.load(str(saved[1]), config=MODEL | {"name": "resnet8", "weights": "/nowhere"}).config == MODEL | {
        "weights": None,
        "pretrained": False,
    }


def test_a_state_comes_back(tmp_path):
    state = {"step": 3, "best": None, "model": {"w": torch.eye(2)}}
    checkpoint.save_state(tmp_path / "state.pt", state)
    found = checkpoint.load_state(tmp_path / "state.pt")
    assert (found["step"], found["best"]) == (3, None)
    assert torch.equal(found["model"]["w"], torch.eye(2))


@pytest.mark.parametrize("size", [0, 10, 600])
def test_a_damaged_state_is_one_error(tmp_path, size):
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"w": torch.eye(20)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"resume=true: .*state\.pt' is damaged \(.*move it away"):
        checkpoint.load_state(path)


def test_a_state_with_code_in_it_is_refused(tmp_path):
    """Unpickling may run anything that a file names: only tensors and plain values are read."""
    path = tmp_path / "state.pt"
    torch.save({"x": print}, path)
    with pytest.raises(UserError, match="more than tensors and plain values"):
        checkpoint.load_state(path)


@pytest.fixture
def folder(tmp_path):
    """A network of 3 named classes and one channel as timm saves it for the hub; and the network."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    timm.models.save_for_hf(model, tmp_path / "hub", model_config={"label_names": CLASSES})
    return f"local-dir:{tmp_path / 'hub'}", model.eval()


def test_a_folder_of_timms_is_a_network_to_start_from(folder, tmp_path):
    path, model = folder
    network = checkpoint.load(path)
    assert (network.config["name"], network.classes, network.spec.size[0]) == ("test_resnet", CLASSES, 1)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.model(images), model(images))
    checkpoint.save(tmp_path / "n.safetensors", network, {})
    again = checkpoint.load(str(tmp_path / "n.safetensors"))
    with torch.no_grad():
        assert torch.equal(again.model(images), model(images))


def test_a_folder_of_timms_has_no_data(folder):
    found = checkpoint.beginning(folder[0])
    assert list(found) == ["model"]
    assert found["model"]["args"]["in_chans"] == 1


def test_a_folder_without_a_network_says_what_must_be_in_it(tmp_path):
    for read in (checkpoint.load, checkpoint.beginning):
        with pytest.raises(UserError, match=r"init_from='local-dir:.*must hold config\.json and model\.safetensors"):
            read(f"local-dir:{tmp_path}")
