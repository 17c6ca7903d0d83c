"""Guards that files outlive rooms: what version 0.1.0 wrote still loads, trains on and scores as it did."""

import json
from pathlib import Path

import pytest
import torch

import micronet_cli
from micronet_cli.dotted_path import locate
from micronet_cli.scoring import score
from tests.conftest import metrics_of

SAVED = Path(__file__).parent / "saved" / "v0_1_0"
SHORT = ("trainer.max_steps=3", "optim.lr=0.001")
FILES = ("checkpoint.safetensors", "model.mnet")
EXPECTED = json.loads((SAVED / "expected.json").read_text())
DOTTED_PATHS = (SAVED / "dotted_paths.txt").read_text().split()


def fixed_images() -> torch.Tensor:
    """Images that no random generator's version can change, ``[6, 3, 16, 16]``."""
    wave = torch.linspace(-2, 2, 6 * 3 * 16 * 16, dtype=torch.float64).sin()
    return 2 * wave.view(6, 3, 16, 16)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_an_earlier_version_gives_the_logits_it_gave(name):
    model = micronet_cli.load(str(SAVED / name)).double()
    with torch.no_grad():
        logits = model(fixed_images())
    torch.testing.assert_close(logits, torch.tensor(EXPECTED[name]["logits"], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_an_earlier_version_scores_as_it_did(name):
    figures = score(micronet_cli.load(str(SAVED / name)), (3, 16, 16))
    assert figures["micronet_score"] == EXPECTED[name]["score"]
    assert figures["storage_bytes"] == EXPECTED[name]["storage_bytes"]


def test_training_goes_on_from_a_checkpoint_of_an_earlier_version(micronet):
    run = micronet(
        "stage=train", f"init_from={SAVED / 'checkpoint.safetensors'}", "trainer.max_steps=3", "optim.lr=0.001"
    )
    assert metrics_of(run)["status"] == "completed"
    assert metrics_of(run)["top1"] > 80
    assert metrics_of(run)["weight_sparsity"] > 0.4  # its masks are still there


def test_a_checkpoint_of_an_earlier_version_is_exported_with_its_removed_channels(micronet):
    """The packer knows a removal by its dotted path, which has another name now."""
    run = micronet("stage=export", f"init_from={SAVED / 'checkpoint.safetensors'}", "export.onnx=false")
    packed = micronet_cli.load(str(run)).double()
    with torch.no_grad():
        logits = packed(fixed_images())
    expected = torch.tensor(EXPECTED["model.mnet"]["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", DOTTED_PATHS)
def test_a_dotted_path_of_an_earlier_version_is_found(path):
    assert callable(locate(path, "here"))
