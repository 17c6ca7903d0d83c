"""What a comparison counts, by hand."""

import pytest
import torch
from torch import nn

from micronet_cli.artifact.compare import Comparison, compare
from micronet_cli.layers.fake_quantize import attach_output_fake_quantize
from micronet_cli.layers.integer import IntegerActivation


def quantised(scale=1.0):
    """A layer that passes its input on, quantised to integers 0 .. 15 over ``scale``."""
    model = nn.Sequential(nn.Flatten(), nn.Flatten())
    attach_output_fake_quantize(model[0], IntegerActivation(4, scale, 0))
    return model


IMAGES = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0], [0.0, 5.0, 5.6]]).view(3, 3, 1, 1)


def test_network_beside_itself_differs_nowhere():
    found = compare(quantised(), quantised(), IMAGES, torch.float64)
    assert (found.images, found.same_predictions, found.same_codes, found.codes) == (3, 3, 3, 9)
    assert (found.differing_codes, found.unexplained, found.logit_error) == (0, 0, 0.0)
    assert found.differing_by_module == {}


def test_differing_integers_are_counted_by_module():
    found = Comparison()
    changed = found.add_codes("a", torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 1], [0, 0]]), images=2)
    assert changed.tolist() == [False, True]
    found.add_codes("a", torch.tensor([[1]]), torch.tensor([[2]]), images=1)
    found.add_codes("b", torch.tensor([[1]]), torch.tensor([[1]]), images=1)
    assert (found.codes, found.differing_codes, found.differing_by_module) == (6, 3, {"a": 3})


def test_windows_of_an_image_count_as_that_image():
    windows = torch.zeros(6, 2)  # three of each of two images
    differing = windows.clone()
    differing[4, 1] = 1
    changed = Comparison().add_codes("attention", windows, differing, images=2)
    assert changed.tolist() == [False, True]


def test_another_prediction_from_equal_integers_is_unexplained():
    found = Comparison()
    ours, theirs = torch.tensor([[0.0, 4.0], [4.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found.add_logits(ours, theirs, torch.tensor([False, True]))
    assert (found.images, found.same_predictions, found.same_codes, found.unexplained) == (2, 0, 1, 1)
    assert found.logit_error == 1.0


def test_logits_that_are_all_zero_have_no_error():
    found = Comparison()
    found.add_logits(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([False]))
    assert found.logit_error == 0.0


def test_quantiser_of_one_network_alone_is_an_error():
    with pytest.raises(ValueError, match=r"quantisers of one network alone: 0\.output_fake_quantize"):
        compare(quantised(), nn.Sequential(nn.Flatten()), IMAGES, torch.float64)


def test_compared_networks_are_left_as_they_were():
    model = quantised().train()
    compare(model, model, IMAGES, torch.float64)
    assert model.training
    assert not model[0].output_fake_quantize._forward_hooks
