"""A network run again from a layer on gives what the whole network gives, whatever lies between the layers."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli.explore.prefix import Prefix
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8


def check(model, images):
    """Change every layer in turn; replay against the whole network, bit by bit."""
    prefix = Prefix(model, images)
    with torch.no_grad():
        whole = model(images)
        assert torch.equal(prefix.record(images), whole)
        for name, layer in compressible_layers(model).items():
            before = layer.weight.clone()
            layer.weight *= torch.rand_like(layer.weight)
            assert torch.equal(prefix.replay(images, layer), model(images)), name
            layer.weight.copy_(before)
        assert torch.equal(model(images), whole)
    assert not [module for module in model.modules() if "forward" in vars(module)]
    return prefix


NETWORKS = {
    "residual": {"model_name": "resnet8"},
    "activations in place": {"model_name": "resnet18"},
    "inverted residual with squeeze-and-excitation": {"model_name": "mobilenetv3_small_050"},
    "layer norm": {"model_name": "convnext_atto", "depths": (1, 1, 1, 1)},
    "attention": {"model_name": "vit_tiny_patch16_224", "img_size": 32, "depth": 3},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS.keys())
def test_replay_equals_the_whole_network(options):
    torch.manual_seed(0)
    check(timm.create_model(num_classes=3, **options).eval(), torch.randn(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "densenet121", "xception41", "dpn48b", "res2net50_26w_4s"])
def test_replay_equals_the_whole_network_of_many_kinds(name):
    torch.manual_seed(0)
    check(timm.create_model(name, num_classes=3).eval(), torch.randn(1, 3, 64, 64))


class InPlace(nn.Module):
    """Writes to what modules returned, and to a module's input, and uses both."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x)
        self.act(x)  # the returned tensor is thrown away
        y = self.second(x)
        x += y
        y.mul_(2)
        return self.third(x + y).mean((2, 3))


def test_in_place_operations_do_not_reach_what_is_remembered():
    torch.manual_seed(0)
    check(InPlace().eval(), torch.randn(2, 3, 4, 4))


class Twice(nn.Module):
    """A layer called twice, one whose weight another has, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.again, self.tied, self.source, self.unused = (nn.Linear(4, 4) for _ in range(4))
        self.tied.weight = self.source.weight

    def forward(self, x):
        x = self.again(self.again(self.source(x)))
        return self.tied(x) + nn.functional.linear(x, self.unused.weight)


def test_shared_and_uncalled_layers_are_right_too():
    torch.manual_seed(0)
    check(Twice().eval(), torch.randn(5, 4))


def test_a_module_shared_by_two_parents_is_right_too():
    torch.manual_seed(0)
    act, first, second = nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
    blocks = nn.Sequential(first, act), nn.Sequential(second, act)
    check(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4 * 16, 5)).eval(), torch.randn(2, 3, 4, 4))


def test_what_lies_before_is_not_computed():
    torch.manual_seed(0)
    model = timm.create_model("resnet8", num_classes=3).eval()
    images, runs = torch.randn(2, 3, 16, 16), []
    prefix = Prefix(model, images)
    prefix.record(images)
    for name, layer in compressible_layers(model).items():
        layer.register_forward_hook(lambda module, inputs, output, name=name: runs.append(name))
        conv = layer.forward
        layer.forward = lambda x, conv=conv, name=name: runs.append(f"{name} computed") or conv(x)
    prefix.replay(images, model.layer2[0].conv2)
    computed = [run.removesuffix(" computed") for run in runs if run.endswith("computed")]
    assert computed == ["layer2.0.conv2", "layer3.0.conv1", "layer3.0.conv2", "linear"]


def test_memory_is_counted_once_for_shared_storage():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Identity())
    # [1, 8] floats once, though the layer, the identity and the sequence return it; the flattened image besides.
    assert Prefix(model, torch.zeros(3, 4, 1, 1)).bytes_per_image == 8 * 4 + 4 * 4
