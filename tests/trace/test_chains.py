"""What follows a layer."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.trace.chains import chains


def conv(channels_in=3, channels=3, kernel=1, **options):
    return nn.Conv2d(channels_in, channels, kernel, **options)


def follow(model, shape=(3, 8, 8)):
    return {n: (c.norm, c.function, c.after, c.equalizable) for n, c in chains(model, shape).items()}


def test_residual_blocks_have_one_pair_each():
    found = follow(timm.create_model("resnet8"), (3, 32, 32))
    assert found["conv1"] == ("bn1", "relu", None, False)  # the shortcut reads it too
    assert found["layer2.0.conv1"] == ("layer2.0.bn1", "relu", "layer2.0.conv2", True)
    assert found["layer2.0.conv2"] == ("layer2.0.bn2", None, None, False)
    assert found["linear"] == (None, None, None, False)
    assert next(iter(found)) == "conv1"
    assert list(found)[-1] == "linear"


def test_a_relu_in_place_is_the_only_reader():
    assert follow(nn.Sequential(conv(), nn.ReLU(True), conv()))["0"] == (None, "relu", "2", True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        pytest.param(nn.ReLU6(), "hardtanh", id="relu6"),
        pytest.param(nn.SiLU(), "silu", id="silu"),
        pytest.param(nn.SiLU(True), "silu", id="silu in place"),
    ],
)
def test_other_functions_end_no_chain_but_are_not_equalised(function, name):
    assert follow(nn.Sequential(conv(), function, conv()))["0"] == (None, name, "2", False)
    activation = chains(nn.Sequential(conv(), function, conv()), (3, 8, 8))["0"].activation
    x = torch.tensor([-1.0, 0.5, 9.0])
    assert torch.equal(activation(x), function(x.clone()))
    assert x.tolist() == [-1, 0.5, 9]


def test_pools_and_a_flattened_pixel_are_passed():
    pooled = nn.Sequential(
        conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert follow(pooled)["0"] == (None, "relu", "5", True)
    assert chains(pooled, (3, 8, 8))["0"].shiftable
    averaged = nn.Sequential(conv(3, 4), nn.AvgPool2d(2, padding=1), conv(4, 4))
    assert not chains(averaged, (3, 8, 8))["0"].shiftable  # there are zeros beside the channels
    spread = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(256, 2))
    assert follow(spread)["0"] == (None, None, None, False)


def test_a_linear_layer_on_rows_of_pixels_reads_no_channels():
    assert follow(nn.Sequential(conv(3, 8), nn.ReLU(), nn.Linear(8, 2)))["0"][2] is None


def test_a_function_behind_a_pool_is_not_the_layers():
    assert follow(nn.Sequential(conv(), nn.AvgPool2d(2), nn.ReLU(), conv()))["0"] == (None, None, None, False)


def test_depthwise_layers_are_read_channel_by_channel():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 8, groups=4), nn.ReLU(), conv(8, 2))
    assert [c[2] for c in follow(model).values()] == ["2", "4", None]


class Twice(nn.Module):
    def __init__(self, use):
        super().__init__()
        self.a, self.b, self.use = conv(), conv(), use

    def forward(self, x):
        return self.use(self, self.a(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda m, y: m.b(F.relu(y)) + y,
        lambda m, y: (m.b(F.relu(y)), y)[0] * y.mean(),
        lambda m, y: m.b(m.b(F.relu(y))),
        lambda m, y: (y, m.b(y)),
        lambda m, y: (lambda view: m.b(F.relu_(y)) + view)(y[:, :1]),
    ],
    ids=["residual", "mean", "called twice", "an output", "changed under a view"],
)
def test_another_reader_ends_the_chain(use):
    assert follow(Twice(use))["a"][2:] == (None, False)


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU(), conv()).train()
    attach_mask(model[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert follow(model)["0"] == ("1", "relu", "3", True)
    assert all(module.training for module in model.modules())
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Table(nn.Module):
    """A table of positions that two layers make of a buffer, as Swin V2 does; it never meets the image before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("positions", torch.arange(6.0).view(1, 3, 2))
        self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 1)

    def forward(self, x):
        return x + self.second(F.relu(self.first(self.positions))).view(1, 3, 1, 1)


def test_layers_that_read_no_image_are_followed_too():
    assert follow(Table())["first"] == (None, "relu", "second", True)
