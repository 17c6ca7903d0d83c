"""Guards first convolutions for other channels than red, green and blue: made of the colours' weights, and said."""

import logging

import pytest
import timm
import torch

from micronet_cli.errors import UserError
from micronet_cli.models.fitting import load_fitted
from micronet_cli.models.stem import with_stem_of

SOURCE = "model.weights='w.pth'"
COLOURS = torch.tensor([1.0, 2.0, 5.0])
# Channels -> weights, of COLOURS: summed, or repeated and scaled by 3 over their number.
EXPECTED = {1: [8.0], 2: [1.5, 3.0], 4: [0.75, 1.5, 3.75, 0.75]}


@pytest.mark.parametrize("channels", EXPECTED)
def test_weights_of_colours_become_those_of_other_channels(channels, caplog):
    state = timm.create_model("resnet18").state_dict()
    state["conv1.weight"] = COLOURS.view(1, 3, 1, 1).expand(64, 3, 7, 7).clone()
    model = timm.create_model("resnet18", in_chans=channels)
    with caplog.at_level(logging.INFO):
        load_fitted(model, state, SOURCE, "data", False)
    assert model.conv1.weight[5, :, 2, 2].tolist() == pytest.approx(EXPECTED[channels])
    assert caplog.messages == [f"model.weights: conv1 takes 3 channels, the network {channels}: it is adapted"]


def test_a_grey_image_gives_the_logits_of_its_colours():
    torch.manual_seed(0)
    colour = timm.create_model("test_resnet", num_classes=3).eval()
    grey = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    load_fitted(grey, colour.state_dict(), SOURCE, "data", False)
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(grey(images), colour(images.expand(2, 3, 32, 32)), atol=1e-5)


def test_the_same_channels_stay_as_they_are(caplog):
    model = timm.create_model("test_resnet")
    state = model.state_dict()
    with caplog.at_level(logging.INFO):
        assert with_stem_of(model, state, SOURCE)["conv1.0.weight"] is state["conv1.0.weight"]
    assert caplog.messages == []


def test_colours_are_not_made_of_grey():
    grey = timm.create_model("test_resnet", in_chans=1)
    with pytest.raises(UserError, match=r"1 of another shape: conv1.*x1x3x3 in the file.*x3x3x3 in the network"):
        load_fitted(timm.create_model("test_resnet"), grey.state_dict(), SOURCE, "data", False)
