"""Feature maps of two networks: which layers, and what maps one to the other."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli.errors import UserError
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.training.hints import Catcher, Hint, HintLoss, regressor


def test_hint_of_an_unknown_layer_names_near_misses():
    model = timm.create_model("resnet8")
    with pytest.raises(UserError, match=r"distill\.hints\.x\.student='layer9': no such layer; there are layer"):
        HintLoss(model, model, {"x": Hint("layer9", "layer1")}, (torch.zeros(2, 3, 8, 8),) * 2)
    with pytest.raises(UserError, match=r"distill\.hints\.x: the outputs must have as many dimensions"):
        HintLoss(model, model, {"x": Hint("linear", "layer1")}, (torch.zeros(2, 3, 8, 8),) * 2)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_the_loss_is_half_the_mean_squared_difference_over_pairs():
    student, teacher = nn.Sequential(Scale(1.0), Scale(1.0)), nn.Sequential(Scale(3.0), Scale(1.0))
    images = torch.ones(2, 3, 4, 4)
    loss = HintLoss(student, teacher, {"a": Hint("0", "0"), "b": Hint("1", "1")}, (images, images))
    assert loss().item() == 2.0  # (3 - 1)^2 / 2, in both pairs
    student(images * 3)
    assert loss().item() == 0.0


def test_seeing_the_shapes_leaves_the_student_in_its_mode():
    images = torch.ones(2, 3)
    for training in (True, False):
        student = nn.Sequential(nn.BatchNorm1d(3)).train(training)
        before = student[0].running_mean.clone()
        HintLoss(student, nn.Sequential(nn.Identity()), {"a": Hint("0", "0")}, (images, images))
        assert student.training is training
        assert torch.equal(student[0].running_mean, before)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [pytest.param((2, 3, 4, 4), nn.Conv2d, id="maps"), pytest.param((2, 3), nn.Linear, id="vectors")],
)
def test_a_regressor_maps_channels(shape, kind):
    ours, theirs = torch.ones(shape), torch.ones(2, 5, *shape[2:])
    found = regressor(ours, theirs)
    assert isinstance(found, kind)
    assert found(ours).shape == theirs.shape


def test_a_catcher_keeps_the_newest_output():
    model = nn.Sequential(Scale(2.0), Scale(5.0))
    catcher = Catcher(model, {"where": "0"})
    model(torch.ones(1))
    model(torch.full((1,), 3.0))
    assert {name: value.item() for name, value in catcher.caught.items()} == {"0": 6.0}
