"""Numbers of live weights: zeros, blocks, codes, and that only a change is read anew."""

import numpy as np
import pytest
import torch
from torch import nn

from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.trace.products import Shape
from micronet_cli.trace.records import Dot, Stored
from micronet_cli.trace.trace import Trace
from micronet_cli.trace.weights import REMEMBERED, Found, WeightReader


def reader(layer):
    weight = layer.weight.detach()
    outputs, inputs = weight.shape
    shape = Shape(torch.ones(1, inputs), weight, None, (0,), inputs, outputs, 1, outputs)
    owned = hasattr(layer, "parametrizations")
    return WeightReader(shape, weight, layer if owned else None)


def linear(rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data.copy_(torch.tensor(rows))
    return layer


@pytest.mark.parametrize(
    ("zeros", "nonzeros"),
    [
        pytest.param(0, [32, 32], id="none"),
        pytest.param(2, [32, 32], id="one in 32 by chance"),
        pytest.param(3, [29, 32], id="more than one in 32"),
        pytest.param(32, [0, 32], id="a whole channel"),
        pytest.param(64, [0, 0], id="all"),
    ],
)
def test_zeros_count_where_a_mask_would_pay(zeros, nonzeros):
    layer = linear([[1.0] * 32] * 2)
    layer.weight.data.view(-1)[:zeros] = 0
    found = reader(layer).read(False, None)
    assert found.nonzeros.tolist() == nonzeros
    assert found.total == 64 - zeros


def test_a_mask_makes_every_zero_count():
    layer = linear([[1.0] * 32] * 2)
    attach_mask(layer).mask[0, 0] = False
    assert reader(layer).read(False, None).nonzeros.tolist() == [31, 32]


def test_numbers_are_read_anew_only_after_a_change():
    layer = linear([[1.0, 1.0], [1.0, 1.0]])
    weights = reader(layer)
    before = weights.read(False, None)
    assert weights.read(False, None) is before
    with torch.no_grad():
        layer.weight[0] = 0
    assert weights.read(False, None).nonzeros.tolist() == [0, 2]


def test_memory_of_states_is_bounded():
    layer = linear([[1.0, 1.0]])
    weights = reader(layer)
    for _ in range(2 * REMEMBERED + 1):
        with torch.no_grad():
            layer.weight.add_(1)
        weights.read(False, None)
    assert len(weights._remembered) <= REMEMBERED


def test_kept_blocks_are_counted_for_the_asked_shape():
    weights = reader(linear([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert weights.read(False, (2, 2)).kept_blocks == (4, 1, 2)
    assert weights.read(False, (2,)).kept_blocks == (2, 1, 4)
    assert weights.read(False, None).kept_blocks is None


def test_sums_of_codes_are_read_when_asked():
    layer = linear([[0.0, 7.0, -7.0, 1.0]])
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(4)
    weights = reader(layer)
    extremes = weights.read(True, None).extremes
    assert extremes.shape == (2, 1)
    assert extremes[0] > 0 > extremes[1]
    assert weights.read(False, None).extremes is None


def test_a_weight_without_values_is_dense():
    meta = torch.empty(2, 3, device="meta")
    shape = Shape(torch.ones(1, 3), meta, None, (0,), 3, 2, 1, 2)
    found = WeightReader(shape, meta, None).read(False, None)
    assert (found.nonzeros.tolist(), found.total) == ([3, 3], 6)


def test_found_numbers_replace_those_of_the_records():
    found = Found(np.array([1, 2]), 3, kept_blocks=(1, 2, 3), binary=True)
    dot, stored = found.apply(Dot(0, None, 2, np.array([2, 2]), 1, 2), Stored("w", "", 4, 4))
    assert dot.nonzeros.tolist() == [1, 2]
    assert stored == Stored("w", "", 4, 3, kept_blocks=(1, 2, 3), binary=True)


def test_masks_are_told_apart_that_come_and_go():
    layer = nn.Linear(64, 4, bias=False)
    effective = attach_mask(layer)
    trace = Trace(nn.Sequential(layer), (1, 1, 64))
    for zeros in range(1, 20):
        effective.mask = None
        effective.mask = torch.arange(256).reshape(4, 64) >= zeros  # may lie where the one before lay
        assert trace.read().ops[-1].dot.nonzeros.sum() == 256 - zeros
