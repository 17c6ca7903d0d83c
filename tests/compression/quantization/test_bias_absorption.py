"""What a channel always exceeds moves behind the next layer, and the network computes what it did."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from micronet_cli.compression.quantization.bias_absorption import absorb_biases
from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.trace.chains import chains

SHAPE = (4, 8, 8)


def high_biases(*tail, function=None, normed=True):
    """Every channel is one of the images', normalised to mean 5 and deviation 1.

    Evenly distributed values are never more than sqrt(3) deviations from their mean.
    """
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 4, 1, groups=4, bias=False)]
    if normed:
        norm = nn.BatchNorm2d(4, eps=0)
        norm.running_var.copy_(layers[0].weight.detach().flatten().square() / 3)
        norm.bias.data.fill_(5)
        layers.append(norm)
    return nn.Sequential(*layers, function or nn.ReLU(), *tail).double().eval()


def images():
    """Evenly distributed in [-1, 1]: the variance is 1/3."""
    return 2 * torch.rand(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1


def test_two_layers_by_hand():
    first, norm, second = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)
    norm.weight.data = torch.tensor([-1.0, 2.0])
    norm.bias.data = torch.tensor([5.0, 3.0])
    second.weight.data = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    second.bias.data = torch.tensor([1.0])
    model = nn.Sequential(first, norm, nn.ReLU(), second).eval()
    assert absorb_biases(model, chains(model, (1, 2, 2))) == [("0", "3")]
    assert norm.bias.tolist() == [3, 3]  # 5 - 3 * 1 = 2 is always exceeded; 3 - 3 * 2 is below 0
    assert second.bias.tolist() == [7]


CAN_BE_MOVED = {
    "a bias takes it": [nn.Conv2d(4, 6, 3, groups=2)],
    "a BatchNorm takes it": [nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)],
    "through the largest of a window": [nn.MaxPool2d(3, padding=1), nn.Conv2d(4, 6, 1)],
    "through a mean": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)],
    "padded by its own values": [nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")],
}


@pytest.mark.parametrize("tail", CAN_BE_MOVED.values(), ids=CAN_BE_MOVED)
@pytest.mark.parametrize("equalized", [False, True])
def test_outputs_stay_in_double_precision(tail, equalized):
    model = high_biases(*copy.deepcopy(tail))
    with torch.no_grad():
        before = model(images())
        if equalized:
            assert equalize(model, chains(model, SHAPE))
        largest = model[:3](images()).amax()
        assert len(absorb_biases(model, chains(model, SHAPE))) == 1
        torch.testing.assert_close(model(images()), before, rtol=1e-12, atol=1e-12)
        assert model[:3](images()).amax() < largest - 0.1


MUST_STAY = {
    "zeros beside the input": high_biases(nn.Conv2d(4, 6, 3, padding=1)),
    "zeros as TensorFlow pads": high_biases(Conv2dSame(4, 6, 3)),
    "zeros in a pool": high_biases(nn.AvgPool2d(3, padding=1), nn.Conv2d(4, 6, 1)),
    "an upper bound": high_biases(nn.Conv2d(4, 6, 1), function=nn.ReLU6()),
    "a curve": high_biases(nn.Conv2d(4, 6, 1), function=nn.SiLU()),
    "an unknown distribution": high_biases(nn.Conv2d(4, 6, 1), normed=False),
    "nothing takes it": high_biases(nn.Conv2d(4, 6, 1, bias=False)),
    "nobody reads it": high_biases(),
    "biases that are not high": high_biases(nn.Conv2d(4, 6, 1)),
}
MUST_STAY["biases that are not high"][1].bias.data.fill_(2.9)


@pytest.mark.parametrize("model", MUST_STAY.values(), ids=MUST_STAY)
def test_what_would_change_the_network_is_left_alone(model):
    before = copy.deepcopy(model.state_dict())
    assert absorb_biases(model, chains(model, SHAPE)) == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("absorbs", [False, True])
def test_it_is_a_setting_of_post_training(absorbs):
    model = high_biases(nn.Conv2d(4, 6, 1))
    before = model(images())
    sweep = PostTraining(absorb_bias=absorbs).prepare(model, SHAPE)
    assert sweep.absorbed == ([("0", "3")] if absorbs else [])
    torch.testing.assert_close(sweep.reference(images()), before)
