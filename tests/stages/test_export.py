"""``stage=export`` and what is done with its file, as a user types it."""

import json

import pytest
import timm
import torch
from torch import nn

import micronet_cli
from micronet_cli.errors import UserError
from micronet_cli.layers.integer import IntegerActivation
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.stages import export
from tests.conftest import TINY, metrics_of
from tests.test_real_data import CIFAR, WEIGHTS, needs_cifar


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("export") / "qat"
    main(["stage=qat", *TINY, "quantize=w4a4", "prune=agp", "trainer.max_steps=6", f"hydra.run.dir={run}"])
    return run


def test_exported_network_is_evaluated_and_scored_like_its_checkpoint(quantised, micronet):
    run = micronet("stage=export", f"init_from={quantised}", "export.licence=CC-BY-4.0")
    exported, trained = metrics_of(run), metrics_of(quantised)
    assert exported["status"] == "completed"
    assert exported["file_bytes"] == (run / "model.mnet").stat().st_size
    assert exported["storage_bytes"] == trained["storage_bytes"]
    report = json.loads((run / "export.json").read_text())
    assert sum(stream["bytes"] for stream in report["streams"].values()) == report["file_bytes"]
    assert report["comparison"]["float64"]["differing_codes"] == 0
    assert report["compared_images"] == "val"  # integer ranges are not fitted to test images
    assert report["certificate"]["layer1.0.conv1"]["max_bits"] <= 16
    assert set(report["layers"]) == {"conv1", "linear", *report["certificate"]}
    assert report["onnx"]["model.onnx"]["bytes"] == (run / "model.onnx").stat().st_size
    assert report["onnx"]["model.onnx"]["equal_predictions"] >= 0.75  # of 8 images, one may lie on a tie
    engines = report["engines"]
    assert set(engines) == {"simulator", "model.mnet", "model.onnx"}
    fused = engines["model.onnx"]["onnxruntime all"]
    assert len(fused["layers"]) == 7
    assert all(layer["codes_within_one_step"] == 1 for layer in fused["layers"].values())
    assert fused["accuracy"]["images"] == exported["exported_images"] == 359
    assert fused["accuracy"]["network_top1"] == pytest.approx(trained["top1"], abs=0.3)
    plain = report["model.safetensors"]
    assert plain["bytes"] == (run / "model.safetensors").stat().st_size
    assert "timm.create_model('resnet8', num_classes=10" in plain["load"]
    assert len(plain["lost_activation_quantizers"]) == 7  # all layers but the stem
    evaluated = micronet("stage=eval", f"init_from={run / 'model.mnet'}")
    assert metrics_of(evaluated)["images"] == 359
    assert metrics_of(evaluated)["top1"] == pytest.approx(trained["top1"], abs=0.3)
    assert (evaluated / "model.mnet").read_bytes() == (run / "model.mnet").read_bytes()
    scored = micronet("stage=score", f"init_from={evaluated}", "score.accumulator=integer")
    wanted = metrics_of(micronet("stage=score", f"init_from={quantised}", "score.accumulator=integer"))
    assert metrics_of(scored)["micronet_score"] == wanted["micronet_score"] < trained["micronet_score"]
    model = micronet_cli.load(str(run / "model.mnet")).double()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 16, 16, dtype=torch.float64)).shape == (1, 10)


def test_packed_network_is_not_trained_nor_packed_again(quantised, micronet, mistake):
    run = micronet("stage=export", f"init_from={quantised}", "export.onnx=false", "export.entropy=false")
    file = run / "model.mnet"
    assert "packed" in mistake("stage=qat", f"init_from={file}", "quantize=w8a8")
    assert "packed" in mistake("stage=train", f"init_from={file}")
    assert "packed" in mistake("stage=score", f"init_from={file}", "prune=agp")
    assert "packed already" in mistake("stage=export", f"init_from={file}")


def test_damaged_file_is_a_users_mistake(quantised, micronet, mistake, tmp_path):
    run = micronet("stage=export", f"init_from={quantised}", "export.onnx=false", "export.images=1")
    damaged = tmp_path / "damaged.mnet"
    damaged.write_bytes((run / "model.mnet").read_bytes()[:-100])
    assert "truncated or damaged" in mistake("stage=eval", f"init_from={damaged}")
    assert "at least 1" in mistake("stage=export", f"init_from={quantised}", "export.images=0")
    assert "no such file" in mistake("stage=score", "init_from=nothing.mnet")


def test_network_that_packs_into_something_else_is_no_success(quantised, mistake, monkeypatch, tmp_path):
    from micronet_cli.artifact import live_layer as module

    right = module.gain_and_shift
    monkeypatch.setattr(module, "gain_and_shift", lambda norm: (2 * right(norm)[0], right(norm)[1]))
    said = mistake("stage=export", f"init_from={quantised}", "export.onnx=false", "export.images=2")
    assert "differs from its checkpoint" in said
    assert not list(tmp_path.rglob("model.mnet"))


def test_network_without_plain_weights_says_why(quantised, micronet):
    shrunk = micronet("stage=shrink", f"init_from={filtered(micronet)}")
    options = ("export.onnx=false", "export.images=1")
    run = micronet("stage=export", f"init_from={shrunk}", *options)
    report = json.loads((run / "export.json").read_text())
    assert "channels were taken out" in report["model.safetensors"]["reason"]
    assert not (run / "model.safetensors").exists()
    assert (run / "model.mnet").exists()
    run = micronet("stage=export", f"init_from={quantised}", "export.weights=false", *options)
    assert "model.safetensors" not in json.loads((run / "export.json").read_text())


def filtered(micronet):
    """A run without half of its filters."""
    return micronet("stage=prune", *TINY, "prune=filter", "prune.rules.conv.sparsity=0.5", "trainer.max_steps=2")


def test_a_folder_that_timm_saved_is_exported(micronet, mistake, tmp_path):
    model = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(model, tmp_path / "hub")
    start = f"local-dir:{tmp_path / 'hub'}"
    options = ("export.onnx=false", "export.images=2")
    run = micronet("stage=export", f"init_from={start}", *options)
    report = json.loads((run / "export.json").read_text())
    assert report["compared_images"] == "random"
    assert report["model.safetensors"]["equal_predictions"] == 1
    assert micronet_cli.load(run / "model.mnet")(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    run = micronet("stage=export", f"model={start}", "model.pretrained=true", *options)
    assert micronet_cli.load(run / "model.mnet")(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert "choose a data set, as data=imagefolder" in mistake("stage=eval", f"init_from={start}")


@needs_cifar
@pytest.mark.slow
def test_real_network_predicts_the_same_on_the_test_images(micronet):
    from micronet_cli import checkpoint
    from micronet_cli.artifact.compare import compare

    data = ("data=imagefolder", f"data.train={CIFAR / 'train.tar'}", f"data.test={CIFAR / 'test.tar'}")
    start = ("model=resnet20", f"model.weights={WEIGHTS}", *data, "trainer.max_steps=20")
    trained = micronet("stage=qat", *start, "prune=agp", "prune.rules.conv.sparsity=0.6", "quantize=w4a4")
    run = micronet("stage=export", f"init_from={trained}", "export.onnx=false", "export.images=5000")
    exact = json.loads((run / "export.json").read_text())["comparison"]["float64"]
    assert exact["images"] == 5000
    assert exact["unexplained"] == 0
    assert exact["same_codes"] >= 4950
    assert exact["same_predictions"] >= 4995
    top1 = metrics_of(micronet("stage=eval", f"init_from={run}"))["top1"]
    assert top1 == pytest.approx(metrics_of(trained)["top1"], abs=0.1)
    networks = [checkpoint.load(str(where)).model for where in (trained, run)]
    assert compare(*networks, torch.randn(2, 3, 32, 32), torch.float32).same_predictions == 2


class Table(nn.Module):
    """A constant table of one code that every activation depends on."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Buffer(torch.tensor([[value]]))
        self.of_table = IntegerActivation(6, 1.0, 0)
        self.of_sum = IntegerActivation(6, 1.0, 0)

    def forward(self, images):
        shift = self.of_table(self.value)
        return self.of_sum(images.flatten(1) + 8 * shift)


class WrongSum(Table):
    def forward(self, images):
        return super().forward(images + 1)


def checked(monkeypatch, tmp_path, source, packed):
    """What the check of an exported network says of these two."""
    path = tmp_path / "model.mnet"
    path.write_bytes(b"")
    monkeypatch.setattr(export.runtime, "load_bytes", lambda content, trust: (packed, {}))
    for name in ("stream_bytes", "layer_bytes", "certificate"):
        monkeypatch.setattr(export, name, lambda *given: {})
    images = torch.arange(20000).reshape(1, 1, 100, 200) % 10
    network = Network(source, {}, [], InputSpec((1, 100, 200), (0.5,), (0.5,)))
    _, report = export._checked(network, path, images.float(), "random")
    return report


def test_one_code_of_a_constant_table_on_a_tie_is_no_fault(monkeypatch, tmp_path):
    found = checked(monkeypatch, tmp_path, Table(0.5), Table(0.5 + 1e-6))["comparison"]
    assert found["float64"]["differing_codes"] == 20001
    assert found["float64_alone"]["differing_codes"] == 1
    assert "float64_alone" not in checked(monkeypatch, tmp_path, Table(0.5), Table(0.5))["comparison"]


def test_another_sum_behind_equal_codes_is_a_fault(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="differs from its checkpoint"):
        checked(monkeypatch, tmp_path, Table(0.5), WrongSum(0.5 + 1e-6))
