"""Activations carried forward are, bit by bit, what a run from the image gives, whatever the network."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli.layers.layer_input import watch_input
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from micronet_cli.trace.carried import carried
from micronet_cli.trace.chains import chains


def from_the_image(model, name, images):
    """What a layer reads in a run of the whole network."""
    seen = []
    handle = watch_input(model.get_submodule(name), lambda x: seen.append(x.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def change(model, name):
    with torch.no_grad():
        model.get_submodule(name).weight.mul_(0.9)


NETWORKS = {
    "residual": {"model_name": "resnet8"},
    "activations in place": {"model_name": "resnet18"},
    "squeeze-and-excitation": {"model_name": "mobilenetv3_small_050"},
    "concatenations": {"model_name": "densenet121", "block_config": (2, 2)},
    "layer norm": {"model_name": "convnext_atto", "depths": (1, 1, 1, 1)},
    "attention": {"model_name": "vit_tiny_patch16_224", "img_size": 32, "depth": 2},
    "windows": {"model_name": "swin_tiny_patch4_window7_224", "img_size": 56, "depths": (2, 2), "num_heads": (3, 6)},
    "a table that is cached": {"model_name": "levit_128s", "img_size": 32},
}


@pytest.mark.parametrize("memory_bytes", [10**12, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_what_is_carried_is_what_the_image_gives(options, memory_bytes, tmp_path):
    torch.manual_seed(0)
    side = options.get("img_size", 32)
    model = timm.create_model(num_classes=3, **options).eval()
    names = list(chains(model, (3, side, side)))
    batches = [torch.randn(2, 3, side, side), torch.randn(1, 3, side, side)]
    networks = [model]
    with carried(networks, batches, memory_bytes, tmp_path) as forward:
        for name in names:
            for images, (count, (x,)) in zip(batches, forward.inputs(name), strict=True):
                assert count == len(images)
                assert torch.equal(x, from_the_image(model, name, images)), name
            change(model, name)


def counted(model):
    """How often the network is run."""
    runs = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


def test_each_batch_is_run_once():
    model = timm.create_model("resnet8", num_classes=3).eval()
    batches = [torch.randn(1, 3, 16, 16) for _ in range(3)]
    with carried([model], batches) as forward:
        runs = counted(model)
        for name in compressible_layers(model):
            assert len(list(forward.inputs(name))) == 3
    assert len(runs) == 3


class Remembering(nn.Module):
    """Reads at its end what it wrote down at its beginning."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        self.image = x * 2
        x = self.first(x)
        return self.last(x + self.image)


def test_a_network_that_keeps_what_it_has_seen_runs_from_the_images(caplog):
    model = Remembering().eval()
    batches = [torch.randn(2, 3), torch.randn(2, 3)]
    with carried([model], batches) as forward:
        runs = counted(model)
        for name in ("first", "last"):
            for images, (_, (x,)) in zip(batches, forward.inputs(name), strict=True):
                made = len(runs)
                assert torch.equal(x, from_the_image(model, name, images))
                del runs[made:]
            change(model, name)
    assert len(runs) == 4
    assert "run from the images for every layer" in caplog.text


def test_a_layer_that_came_before_has_the_network_run_again(caplog):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    images = torch.randn(2, 3)
    with carried([model], [images]) as forward:
        for name in ("1", "0"):
            for _, (x,) in forward.inputs(name):
                assert torch.equal(x, from_the_image(model, name, images))
    assert "0: called in another order" in caplog.text


def test_a_layer_that_is_not_called_is_named():
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "unused": nn.Linear(3, 3)})
    model.forward = lambda x: model["used"](x)
    with carried([model], [torch.randn(2, 3)]) as forward, pytest.raises(ValueError, match="unused: is not called"):
        list(forward.inputs("unused"))
