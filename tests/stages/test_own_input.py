"""Networks whose input is not what timm states: grey images, images with alpha, another size, through the stages."""

import numpy as np
import pytest
import torch
from PIL import Image

import micronet_cli
from micronet_cli import checkpoint
from micronet_cli.layers.rules import own_shape
from tests.conftest import metrics_of

FILTERS = ("prune=filter", "prune.rules.conv.sparsity=0.5")
FOLDED = ("quantize=w4a4", "quantize.fold_batch_norm=true")


@pytest.fixture
def folder_of(tmp_path):
    """Channels -> a folder of 24 PNGs that have them, of 2 classes, learnable by brightness."""

    def make(channels):
        rng = np.random.default_rng(0)
        for label in ("bright", "dark"):
            folder = tmp_path / "images" / label
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 120, (16, 16, channels), dtype=np.uint8)
                if label == "bright":
                    pixels += 100
                Image.fromarray(pixels.squeeze()).save(folder / f"{number}.png")
        return tmp_path / "images"

    return make


def arguments(folder, channels):
    return (
        "model=resnet8", f"model.args.in_chans={channels}", "data=imagefolder", f"data.train={folder}",
        f"data.test={folder}", "data.input_size=16", "data.batch_size=8", "data.workers=0", "trainer.device=cpu",
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_pruned_quantised_and_scored(micronet, folder_of, channels):
    run = micronet("stage=qat", *arguments(folder_of(channels), channels), *FILTERS, *FOLDED, "trainer.max_steps=2")
    assert metrics_of(run)["status"] == "completed"
    network = checkpoint.load(str(run))
    assert network.spec.size == own_shape(network.model) == (channels, 16, 16)
    assert len(network.spec.mean) == channels


@pytest.mark.slow
def test_grey_images_go_through_every_stage(micronet, folder_of):
    dense = micronet("stage=train", *arguments(folder_of(1), 1), "trainer.epochs=2")
    pruned = micronet("stage=prune", f"init_from={dense}", *FILTERS, "trainer.max_steps=6")
    shrunk = micronet("stage=shrink", f"init_from={pruned}")
    assert metrics_of(shrunk)["removed_params"] > 0
    assert metrics_of(shrunk)["top1"] == metrics_of(pruned)["top1"]
    quantised = micronet("stage=qat", f"init_from={shrunk}", *FOLDED, "trainer.max_steps=2")
    resumed = micronet("stage=qat", f"init_from={shrunk}", *FOLDED, "trainer.max_steps=2", directory=quantised)
    assert metrics_of(resumed)["status"] == "completed"
    rounded = micronet("stage=ptq", f"init_from={pruned}", "quantize=w8a8", "ptq.adaround=null", "ptq.images=8")
    for made in (quantised, rounded):
        packed = micronet("stage=export", f"init_from={made}")
        again = metrics_of(micronet("stage=eval", f"init_from={packed}"))
        assert again["micronet_score"] == pytest.approx(metrics_of(made)["micronet_score"])
        assert micronet_cli.load(str(packed))(torch.zeros(1, 1, 16, 16)).shape == (1, 2)


VIT = ("model=vit_tiny_patch16_224", "model.args.depth=1", "model.num_classes=10")


def test_a_vision_transformer_of_another_size_is_pruned_and_folded(micronet):
    run = micronet("stage=score", *VIT, "model.args.img_size=32", *FILTERS, *FOLDED)
    assert metrics_of(run)["status"] == "completed"


def test_another_size_than_it_was_built_for_names_the_way_out(mistake):
    said = mistake("stage=score", *VIT, "data.input_size=32", *FILTERS)
    assert "data.input_size=32: vit_tiny_patch16_224 does not take it (Input height" in said
    assert "model.args.img_size=32" in said
