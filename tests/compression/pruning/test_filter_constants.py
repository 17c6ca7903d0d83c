"""What makes the constant in a dropped filter's channel: which parameters of which module, and that they go to zero."""

import torch
from torch import nn

from micronet_cli.compression.pruning.filter_constants import constants_of, silence
from micronet_cli.layers.rules import stated_shape


def network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1, bias=False))
    model.pretrained_cfg = {"input_size": (3, 8, 8)}
    return model.eval()


def test_a_batch_norm_s_gain_and_shift_or_else_the_bias():
    model = network()
    found = constants_of([model[0], model[2], model[3]], model)
    assert [layer for layer, _ in found] == [model[0], model[2]]
    (_, of_norm), (_, own) = found
    assert [id(p) for p in of_norm] == [id(model[1].weight), id(model[1].bias)]
    assert [id(p) for p in own] == [id(model[2].bias)]


def test_without_a_stated_shape_nothing_is_known_of_norms():
    model = network()
    del model.pretrained_cfg
    assert stated_shape(model) is None
    ((layer, shifts),) = constants_of([model[0]], model)
    assert layer is model[0]
    assert [id(p) for p in shifts] == [id(model[0].bias)]


def test_channels_that_are_kept_keep_what_they_have():
    shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    silence([shift], torch.tensor([True, False, True]))
    assert shift.tolist() == [1.0, 0.0, 3.0]
