"""What the removal of weights does to the logits: values by hand, groups, networks without derivatives."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning import allocation
from micronet_cli.compression.pruning.allocation import Reading, row_scale, row_weights, shared_out
from micronet_cli.compression.pruning.layer_moments import Moments
from micronet_cli.compression.pruning.second_order import Target
from micronet_cli.functional.granularity import Element
from micronet_cli.layers.effective_weight import attach_mask


def reading(weight, rows, mean):
    centred = rows - mean[:, None]
    moments = Moments.of(weight, centred, centred, rows.shape[1])
    return Reading.of(weight, moments, mean, dampening=1e-9)


def seeded():
    return torch.Generator().manual_seed(0)


def test_a_row_counts_by_the_square_of_what_multiplies_it(monkeypatch):
    monkeypatch.setattr(allocation, "IMAGES_TOGETHER", 1)  # then the signs of one class leave no chance
    images = torch.randn(6, 4, generator=seeded())
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, -2.0, 0.0]]))
    mean = images.mean(0, keepdim=True)
    readings = {"0": reading(model[0].weight, images[None], mean)}
    found = row_weights(model, readings, [images[:4], images[4:]], seeded())
    assert found["0"].tolist() == pytest.approx([6, 24, 0], rel=1e-4)  # images times the square
    assert not model[0].weight.requires_grad


def test_errors_at_all_positions_of_an_image_come_together(monkeypatch):
    monkeypatch.setattr(allocation, "IMAGES_TOGETHER", 1)
    images = torch.randn(5, 1, 1, 1, generator=seeded()).expand(5, 2, 3, 3)
    model = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    model.requires_grad_(False)
    model[3].weight.copy_(torch.tensor([[1.0, 3.0]]))
    rows = images.permute(1, 0, 2, 3).reshape(2, 45, 1)
    readings = {"0": reading(model[0].weight, rows, rows.mean(1))}
    # Alike at all positions, the mean over them has the whole error.
    found = row_weights(model, readings, [images], seeded())
    assert found["0"].tolist() == pytest.approx([5, 45], rel=1e-4)


def test_removal_is_the_error_once_the_others_make_up_for_it():
    rows = torch.randn(1, 5000, 2, generator=seeded()) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    weight = torch.tensor([[2.0, 1.0]])
    found = reading(weight, rows, torch.zeros(1, 2))
    first, second = rows[0].T
    for removed, (gone, stays) in enumerate(((first, second), (second, first))):
        fitted = stays * (gone @ stays) / (stays @ stays)
        left = (gone - fitted) * weight[0, removed]
        shrunk = left.square().mean()
        assert float(found.removal[0, removed]) == pytest.approx(float(shrunk), rel=0.02)


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x).detach()


def test_a_network_without_derivatives_is_told_the_way_out():
    images = torch.randn(4, 3, generator=seeded())
    model = Cut().requires_grad_(False)
    readings = {"layer": reading(model.layer.weight, images[None], images.mean(0, keepdim=True))}
    with pytest.raises(ValueError, match=r"prune.scope=global: .* take prune.scope=layer"):
        row_weights(model, readings, [images], seeded())


def test_one_total_goes_where_a_removal_costs_least():
    targets = []
    readings = {}
    for name, removal in (("dear", [[1.0, 2.0], [3.0, 4.0]]), ("cheap", [[1.0, 2.0], [1.0, 2.0]])):
        layer = nn.Linear(2, 2)
        attach_mask(layer)
        targets.append(Target(name, layer, 0.5))
        readings[name] = Reading(torch.tensor(removal), torch.zeros(1, 2), torch.ones(1))
    weights = {"dear": torch.tensor([9.0, 9.0]), "cheap": torch.tensor([0.1, 10.0])}
    found = shared_out(targets, readings, weights, Element())
    # What a removal adds: 9, 18, 27, 36 and 0.1, 0.2, 10, 20; the four least of all eight go.
    assert [target.sparsity for target in found] == [0.25, 0.75]
    assert [target.layer for target in found] == [target.layer for target in targets]


def test_rows_are_scaled_by_the_root_of_their_weight_over_the_mean_and_hardly_below():
    scale = row_scale(torch.tensor([8.0, 1.0, 0.0]), torch.ones(3, 2, 1, 1))
    assert scale.shape == (3, 1, 1, 1)
    assert scale.flatten().tolist() == pytest.approx([(8 / 3) ** 0.5, (1 / 3) ** 0.5, 0.001**0.5])
