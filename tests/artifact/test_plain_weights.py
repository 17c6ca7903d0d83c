"""``model.safetensors``: timm alone loads it and computes the same; where its architecture cannot, it says why."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from micronet_cli.artifact import plain_weights
from micronet_cli.artifact.plain_weights import NoPlainWeights, check_plain, loading_call, plain_state, to_bytes
from micronet_cli.compression.pruning.pruner import Pruner
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.layers.plain import strip
from micronet_cli.models.model import InputSpec, Model, state_input
from micronet_cli.network import Network

RULES = {"most": {"match": "(?!{stem}$).*"}}
SHAPE = (3, 32, 32)


def compressed(name, **options):
    """A network pruned by half and quantised to 4 bits, and its architecture with other weights."""
    torch.manual_seed(0)
    args = {"drop_rate": 0.1} if name.startswith("test_") else None
    config = {"_target_": "micronet_cli.models.model.Model", "name": name, "args": args}
    built = Model(name, args=args)
    model, architecture = built.build(5), built.build(5)
    state_input(model, SHAPE)
    model.train()(torch.randn(8, *SHAPE))  # BatchNorms with statistics of their own
    for compressor in (Pruner({"most": RULES["most"] | {"sparsity": 0.5}}), Quantizer(RULES, **options)):
        compressor.attach(model)
        compressor.update(1, 1)
    model.train()(torch.randn(8, *SHAPE))
    return Network(model.eval(), config, list("abcde"), InputSpec.of(model)), architecture


def write(folder, network, architecture):
    path = folder / plain_weights.NAME
    path.write_bytes(to_bytes(plain_state(network, architecture)))
    return path


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "resnet8"])
@pytest.mark.parametrize("fold", [False, True], ids=["batch_norm", "folded"])
def test_timm_loads_the_file_and_computes_the_same(tmp_path, name, fold):
    network, architecture = compressed(name, fold_batch_norm=fold)
    path = write(tmp_path, network, architecture)
    checked = check_plain(path, network, architecture, torch.randn(8, *SHAPE))
    assert 0 <= checked["equal_predictions"] <= 1
    theirs = timm.create_model(name, num_classes=5, checkpoint_path=str(path)).double().eval()
    ours = strip(network.model).double()
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        expected = ours(images)
        difference = (theirs(images) - expected).abs().max() / expected.abs().max()
    # A BatchNorm that comes back has a gain of 1 in float32.
    assert difference <= (1e-6 if fold else 1e-9)


def test_the_file_is_loaded_where_micronet_cannot_be_imported(tmp_path):
    network, architecture = compressed("test_efficientnet", activation_bits=None)
    write(tmp_path, network, architecture)
    images = torch.randn(2, *SHAPE)
    torch.save(images, tmp_path / "images.pt")
    code = f"""
import sys
sys.modules["micronet_cli"] = None
import timm, torch
model = {loading_call(network, architecture)}.eval()
torch.save(model(torch.load("images.pt")).detach(), "logits.pt")
assert not [name for name in sys.modules if name.startswith("micronet_cli.")]
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.allclose(torch.load(tmp_path / "logits.pt"), network.model(images), atol=1e-5)


def test_channels_that_were_taken_out_are_a_reason():
    network, architecture = compressed("test_resnet")
    target = f"{Removal.__module__}.{Removal.__qualname__}"
    network.compressors = [{"_target_": target, "outputs": {}, "inputs": {}}]
    with pytest.raises(NoPlainWeights, match=r"channels were taken out.*micronet_cli\.strip"):
        plain_state(network, architecture)


def test_standardised_layers_are_a_reason():
    network, architecture = compressed("test_nfnet")
    with pytest.raises(NoPlainWeights, match=r"\d+ layers \(.*\) standardise their weight"):
        plain_state(network, architecture)


def test_another_architecture_is_a_reason():
    network, _ = compressed("test_resnet")
    other = Model("test_efficientnet").build(5)
    with pytest.raises(NoPlainWeights, match="do not fit the network"):
        plain_state(network, other)


def test_a_file_with_another_weight_is_found_out(tmp_path):
    network, architecture = compressed("test_resnet")
    state = plain_state(network, architecture)
    state["fc.weight"] = state["fc.weight"] * 1.01
    path = tmp_path / plain_weights.NAME
    save_file(state, path)
    with pytest.raises(NoPlainWeights, match="computes something else"):
        check_plain(path, network, architecture, torch.randn(2, *SHAPE))


def test_a_call_names_all_that_a_reader_needs():
    network, architecture = compressed("test_resnet")
    call = "timm.create_model('test_resnet', drop_rate=0.1, num_classes=5, checkpoint_path='model.safetensors')"
    assert loading_call(network, architecture) == call
    network, architecture = compressed("resnet8")
    assert loading_call(network, architecture).startswith("import micronet_cli.models.cifar_resnet; timm.create_model(")
