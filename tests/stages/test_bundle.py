"""A published directory: its layout, its runner, and that it is read back as the network that it holds."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import micronet_cli
from micronet_cli import checkpoint
from tests.conftest import TINY, metrics_of


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The bundle of a short quantised run, and the run."""
    from micronet_cli.command.cli import main

    root = tmp_path_factory.mktemp("bundle")
    run, exported = root / "qat", root / "export"
    main(["stage=qat", *TINY, "quantize=w8a8", "trainer.max_steps=3", f"hydra.run.dir={run}"])
    options = ("export.bundle=true", "export.images=2", "export.licence=CC-BY-4.0")
    main(["stage=export", f"init_from={run}", *options, f"hydra.run.dir={exported}"])
    return exported / "bundle", run


def test_layout_is_the_hubs(published):
    bundle, _ = published
    files = {file.name for file in bundle.iterdir()}
    assert files == {
        "README.md", "config.json", "labels.txt", "micronet.safetensors", "model.mnet", "model.onnx",
        "model.safetensors", "run.py",
    }  # fmt: skip
    config = json.loads((bundle / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("resnet8", 10)
    assert config["label_names"] == (bundle / "labels.txt").read_text().split()
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]


def test_card_has_the_measured_table_the_licence_and_no_path(published):
    bundle, run = published
    card = (bundle / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "| `model.onnx` | onnxruntime all | 359 |" in card
    assert "`model.mnet`" in card
    assert str(run.parent) not in card


def test_runner_needs_the_directory_alone(published, tmp_path):
    bundle, run = published
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, str(bundle / "run.py"), str(tmp_path / "images.npy")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    network = checkpoint.load(str(run))
    spec = network.spec
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        best = network.model(pixels).argmax(1).tolist()
    assert said == [network.classes[each] for each in best]


def test_checkpoint_is_read_back_with_its_quantisers(published):
    bundle, run = published
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = checkpoint.load(str(run))
    found = checkpoint.load(f"local-dir:{bundle}")
    assert found.compressors == expected.compressors
    assert found.data == {}
    with torch.no_grad():
        assert torch.equal(found.model(images), expected.model(images))


def test_stages_take_the_directory(published, micronet):
    bundle, run = published
    where = f"local-dir:{bundle}"
    evaluated = micronet("stage=eval", f"init_from={where}", "data=digits", "data.input_size=16", "eval.pictures=0")
    assert metrics_of(evaluated)["top1"] == metrics_of(run)["top1"]
    scored = micronet("stage=score", f"model={where}", "model.pretrained=true")
    assert metrics_of(scored)["status"] == "completed"


def test_the_hubs_cache_is_read_without_a_network(published, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    bundle, run = published
    commit = 40 * "1"
    repository = tmp_path / "models--org--name"
    shutil.copytree(bundle, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = checkpoint.load("hf-hub:org/name")
    assert found.compressors == checkpoint.load(str(run)).compressors
    assert isinstance(micronet_cli.load("hf-hub:org/name"), torch.nn.Module)
