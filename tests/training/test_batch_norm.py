"""BatchNorm's statistics, computed again or frozen."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.errors import UserError
from micronet_cli.training.batch_norm import batch_norms, freeze_batch_norm, reestimate_batch_norm


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))


def test_reestimated_statistics_are_means_over_batches():
    model, batches = network(), [torch.randn(4, 1, 3, 3) + shift for shift in (0.0, 5.0)]
    model[1].running_mean.fill_(99)
    with torch.no_grad():
        outputs = [model[0](images) for images in batches]
    reestimate_batch_norm(model, batches)
    mean = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    variance = torch.stack([out.transpose(0, 1).flatten(1).var(1) for out in outputs]).mean(0)
    assert torch.allclose(model[1].running_mean, mean, atol=1e-5)
    assert torch.allclose(model[1].running_var, variance, atol=1e-4)
    assert model[1].momentum == 0.1
    assert not model.training
    assert not model[1].training


def test_reestimation_leaves_ranges_and_weights_alone():
    model = network()
    Quantizer({"all": BitsRule(".*")}).attach(model)
    model.train()(torch.randn(4, 1, 3, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("1.")}
    reestimate_batch_norm(model, [torch.randn(4, 1, 3, 3) * 10])
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_frozen_statistics_stay_while_the_rest_trains():
    model = network().train()
    freeze_batch_norm(model)
    before = model[1].running_mean.clone()
    model(torch.randn(4, 1, 3, 3))
    assert torch.equal(model[1].running_mean, before)
    assert model[2].training


def test_norms_without_running_statistics_are_left_out():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))
    assert batch_norms(model) == [model[0]]


def test_one_batch_is_its_own_mean():
    norm = nn.BatchNorm1d(2)
    reestimate_batch_norm(norm, [torch.tensor([[1.0, 0.0], [3.0, 0.0]])])
    assert norm.running_mean.tolist() == [2.0, 0.0]
    assert norm.running_var.tolist() == [2.0, 0.0]


def test_outputs_that_are_not_finite_end_a_re_estimation():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
    nn.init.constant_(model[1].weight, float("nan"))
    with pytest.raises(UserError, match=r"^trainer\.reestimate_bn_batches: .* first in layer 1, whose weight is not"):
        reestimate_batch_norm(model, [torch.randn(2, 1, 3, 3)] * 2)
