"""The library beside the command line: the doors are lazy, and what is written gives the same network back."""

import subprocess
import sys

import pytest
import timm
import torch
import yaml
from torch import nn

import micronet_cli
from micronet_cli import checkpoint
from micronet_cli.as_config import as_config
from micronet_cli.errors import UserError
from micronet_cli.paths import CONF

SHAPE = (3, 32, 32)
MOST = "(?!{stem}$).*"


def small(name="test_resnet", **arguments):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments)
    return model.eval()


class Own(nn.Module):
    """A network that timm does not know, and that states no input."""

    def __init__(self, num_classes, width=4):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3)
        self.conv2 = nn.Conv2d(width, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        features = torch.relu(self.conv2(torch.relu(self.conv1(images))))
        return self.fc(features.mean((2, 3)))


OWN = {"args": {"width": 8}, "input_shape": (1, 8, 8)}
UNTRUSTED = r"'tests\.library\.test_library\.Own' is not allowed in a file.*trust=\[tests\]"


def own_importance(weight):
    return weight.abs()


@pytest.fixture
def own():
    """A network of one's own, pruned by a criterion of one's own and quantised, and its compressors."""
    torch.manual_seed(0)
    model = Own(5, width=8)
    compressors = [
        micronet_cli.Pruner({"most": {"match": MOST, "sparsity": 0.5}}, importance=own_importance),
        micronet_cli.Quantizer(),
    ]
    for compressor in compressors:
        compressor.attach(model)
        compressor.update(1, 1)
    model(torch.rand(4, *OWN["input_shape"]))
    return model.eval(), compressors


@pytest.fixture(scope="module")
def trained():
    """A network pruned and quantised in a loop, and its compressors."""
    model = small()
    compressors = [
        micronet_cli.Pruner({"most": {"match": MOST, "sparsity": 0.5}}),
        micronet_cli.Quantizer({"most": {"match": MOST}}, weight_bits=4, activation_bits=8),
    ]
    for compressor in compressors:
        compressor.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        for compressor in compressors:
            compressor.update(step, 3)
        loss = model.train()(torch.randn(4, *SHAPE)).square().mean()
        loss.backward()
        optimizer.step()
    for compressor in compressors:
        compressor.update(3, 3)
    return model.eval(), compressors


@torch.no_grad()
def same_logits(one, other, shape=SHAPE):
    images = torch.randn(2, *shape)
    return torch.equal(one(images), other(images))


def test_importing_it_imports_no_torch():
    code = (
        "import sys, micronet_cli; known = dir(micronet_cli); assert 'torch' not in sys.modules; "
        "assert set(micronet_cli.__all__) <= set(known); micronet_cli.score; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", micronet_cli.__all__)
def test_every_name_is_there_and_described(name):
    assert getattr(micronet_cli, name).__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        micronet_cli.prune  # noqa: B018


def test_a_saved_network_comes_back(trained, tmp_path):
    model, compressors = trained
    path = tmp_path / "network.safetensors"
    micronet_cli.save(path, model, compressors, classes=list("abcde"), metrics={"top1": 50.0})
    assert same_logits(model, micronet_cli.load(path))
    network = checkpoint.load(str(path))
    assert (network.classes, network.metrics) == (list("abcde"), {"top1": 50.0})


@pytest.mark.parametrize("arguments", [{"in_chans": 1}, {"global_pool": "max"}], ids=["in_chans", "global_pool"])
def test_arguments_of_the_constructor_come_back(tmp_path, arguments):
    model = small(**arguments)
    micronet_cli.save(tmp_path / "n.safetensors", model)
    shape = (arguments.get("in_chans", 3), 32, 32)
    assert same_logits(model, micronet_cli.load(tmp_path / "n.safetensors"), shape)


def test_a_loaded_network_is_compressed_further(tmp_path):
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    model = small()
    pruner = micronet_cli.Pruner({"most": {"match": MOST, "sparsity": 0.5}})
    pruner.attach(model)
    pruner.update(1, 1)
    micronet_cli.save(first, model, [pruner], classes=list("abcde"))
    model = micronet_cli.load(first)
    quantizer = micronet_cli.Quantizer({"most": {"match": MOST}}, activation_bits=None)
    quantizer.attach(model)
    micronet_cli.save(second, model, [quantizer], init_from=str(first))
    assert same_logits(model, micronet_cli.load(second))
    assert checkpoint.load(str(second)).classes == list("abcde")


def test_a_compressor_that_was_left_out_is_told_and_nothing_written(trained, tmp_path):
    model, compressors = trained
    path = tmp_path / "network.safetensors"
    with pytest.raises(ValueError, match=r"^the weights do not fit.*unexpected.*compressors all that are attached"):
        micronet_cli.save(path, model, compressors[:1])
    assert not list(tmp_path.iterdir())


def test_a_network_that_was_changed_after_it_was_built_is_told(tmp_path):
    model = small()
    model.act1 = nn.Tanh()
    with pytest.raises(ValueError, match="computes something else"):
        micronet_cli.save(tmp_path / "network.safetensors", model)


def test_a_packed_network_scores_the_same(trained, tmp_path):
    model, _ = trained
    path = tmp_path / "model.mnet"
    assert micronet_cli.pack(model, path) == path.stat().st_size
    packed = micronet_cli.load(path)
    figures = [micronet_cli.score(each, input_shape=SHAPE)["micronet_score"] for each in (model, packed)]
    assert figures[0] == figures[1]


def test_a_network_packed_under_another_description_is_told(tmp_path):
    model = small()
    model.act1 = nn.Tanh()
    with pytest.raises(ValueError, match="differs from its checkpoint"):
        micronet_cli.pack(model, tmp_path / "model.mnet")


def test_a_network_of_ones_own_comes_back_to_who_trusts_it(own, tmp_path):
    model, compressors = own
    path = tmp_path / "own.safetensors"
    micronet_cli.save(path, model, compressors, **OWN)
    with pytest.raises(UserError, match=UNTRUSTED):
        micronet_cli.load(path)
    loaded = micronet_cli.load(path, trust=("tests",))
    assert same_logits(model, loaded, OWN["input_shape"])
    assert loaded.pretrained_cfg["input_size"] == OWN["input_shape"]
    assert checkpoint.load(str(path), trust=("tests",)).classes == ["0", "1", "2", "3", "4"]


def test_a_network_of_ones_own_is_packed(own, tmp_path):
    model, _ = own
    path = tmp_path / "own.mnet"
    micronet_cli.pack(model, path, **OWN)
    with pytest.raises(UserError, match=UNTRUSTED):
        micronet_cli.load(path)
    packed = micronet_cli.load(path, trust=("tests",))
    images = torch.rand(2, *OWN["input_shape"])
    assert torch.allclose(packed(images), model(images), atol=1e-5)


def test_what_init_from_names_must_be_trusted_to_go_on_with_it(own, tmp_path):
    model, compressors = own
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    micronet_cli.save(first, model, compressors, **OWN)
    with pytest.raises(UserError, match=rf"^init_from=.*{UNTRUSTED}"):
        micronet_cli.save(second, model, init_from=str(first))
    with pytest.raises(UserError, match=rf"^init_from=.*{UNTRUSTED}"):
        micronet_cli.pack(model, second, init_from=str(first))
    micronet_cli.save(second, model, init_from=str(first), trust=["tests"])
    assert same_logits(model, micronet_cli.load(second, trust=["tests"]), OWN["input_shape"])
    assert micronet_cli.pack(model, tmp_path / "2.mnet", init_from=str(first), trust=["tests"]) > 0


@pytest.mark.parametrize("option", ["w4a4", "w8a8"])
def test_a_quantizer_without_rules_has_those_of_the_packaged_options(option):
    packaged = yaml.safe_load((CONF / "quantize" / f"{option}.yaml").read_text())
    assert as_config(micronet_cli.Quantizer(), "x")["rules"]["conv"]["match"] == packaged["rules"]["conv"]["match"]
    assert micronet_cli.Quantizer().rules == micronet_cli.Quantizer(packaged["rules"]).rules


def test_post_training_without_labels(tmp_path):
    model = small()
    quantizer = micronet_cli.Quantizer({"most": {"match": MOST}}, weight_bits=8, activation_bits=8)
    float_logits = model(torch.ones(1, *SHAPE))
    from micronet_cli.compression.quantization.post_training import PostTraining

    history = micronet_cli.post_training(model, [torch.randn(8, *SHAPE)], quantizer, PostTraining(adaround=None))
    quantized = model(torch.ones(1, *SHAPE))
    assert 0 < (quantized - float_logits).abs().max() < 0.1 * float_logits.abs().max()
    micronet_cli.save(tmp_path / "n.safetensors", model, history)
    assert same_logits(model, micronet_cli.load(tmp_path / "n.safetensors"))


def test_onnx(trained, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from micronet_cli.artifact.onnx import check_onnx

    model, _ = trained
    written = micronet_cli.export_onnx(model, tmp_path / "model.onnx", input_shape=SHAPE)
    assert written["quantized_weights"] == written["quantized_activations"] == 15
    found = check_onnx(tmp_path / "model.onnx", model, torch.randn(2, *SHAPE))
    assert found["max_abs_deviation"] < 1e-4 * found["max_abs_logit"]
