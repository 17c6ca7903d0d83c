"""Rows that a layer reads, and their product with its weight, against the layer itself."""

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

from micronet_cli.trace.layer_inputs import GROUPED_VALUES, Room, has_rows, input_rows, product

ALL = 10**6


def rows_of(layer, *batches, per_image=ALL, images=None):
    """Rows of one network, ``batches`` being what its layer reads."""
    count = images or [len(batch) for batch in batches]
    inputs = [(number, [batch]) for number, batch in zip(count, batches, strict=True)]
    (rows,) = input_rows(layer, inputs, sum(count), per_image, torch.Generator().manual_seed(0))
    return rows


def in_some_order(columns):
    return sorted(columns.t().tolist())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(nn.Conv2d(3, 3, 1), True, id="convolution"),
        pytest.param(nn.Linear(3, 3), True, id="linear"),
        pytest.param(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), True, id="reflected padding"),
        pytest.param(Conv2dSame(3, 3, 3, stride=2), True, id="as TensorFlow pads"),
        pytest.param(StdConv2d(3, 3, 1), False, id="standardised"),
        pytest.param(nn.ConvTranspose2d(3, 3, 1), False, id="transposed"),
        pytest.param(nn.Conv1d(3, 3, 1), False, id="of one dimension"),
        pytest.param(nn.ReLU(), False, id="no weight"),
    ],
)
def test_has_rows_of_a_plain_product_only(layer, expected):
    assert has_rows(layer) is expected


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3, bias=False),
    "strided and dilated": nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding="same", bias=False),
    "depthwise": nn.Conv2d(4, 4, (1, 3), groups=4, padding=(0, 1), bias=False),
    "two outputs a channel": nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "reflect": nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect", bias=False),
    "circular": nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular", groups=2, bias=False),
    "replicate": nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="replicate", dilation=(1, 2), bias=False),
    "as TensorFlow": Conv2dSame(4, 6, 3, stride=2, bias=False),
    "as TensorFlow, depthwise": Conv2dSame(4, 4, 5, stride=2, groups=4, bias=False),
    "as TensorFlow, dilated": Conv2dSame(4, 6, (3, 2), stride=(1, 2), dilation=2, bias=False),
}


@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@torch.no_grad()
def test_rows_times_weight_are_the_outputs_of_a_convolution(layer):
    assert has_rows(layer)
    images = torch.randn(5, 4, 7, 6)
    made = product(rows_of(layer, images[:3], images[3:]), layer.weight)
    expected = layer(images).movedim(1, 0).flatten(1)
    torch.testing.assert_close(torch.tensor(in_some_order(made)), torch.tensor(in_some_order(expected)))


@torch.no_grad()
def test_rows_times_weight_are_the_outputs_of_a_linear_layer():
    layer, images = nn.Linear(6, 5, bias=False), torch.randn(2, 4, 7, 6)
    rows = rows_of(layer, images)
    assert rows.shape == (1, 56, 6)
    made, expected = product(rows, layer.weight), layer(images).flatten(0, 2).t()
    torch.testing.assert_close(torch.tensor(in_some_order(made)), torch.tensor(in_some_order(expected)))


def test_drawn_positions_are_the_same_in_every_network():
    layer, batches = nn.Conv2d(3, 2, 3), torch.randn(2, 2, 3, 8, 8)
    inputs = [(2, [batch, batch + 1]) for batch in batches]
    one, other = input_rows(layer, inputs, 4, 5, torch.Generator().manual_seed(0))
    assert one.shape == (1, 2 * 2 * 5, 27)
    torch.testing.assert_close(one + 1, other)


def test_windows_of_an_image_share_its_positions():
    layer, windows = nn.Linear(3, 3), torch.randn(2 * 4, 9, 3)
    assert rows_of(layer, windows, images=[2]).shape == (1, 2 * 4 * 9, 3)
    assert rows_of(layer, windows, images=[2], per_image=5).shape == (1, 2 * 5, 3)


def test_what_no_image_decides_is_read_once_an_image():
    rows = rows_of(nn.Linear(1, 1), torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]), images=[3, 3])
    assert sorted(rows.flatten().tolist()) == [1, 1, 1, 1, 2, 2]


def test_a_layer_of_many_groups_is_looked_at_in_fewer_places(monkeypatch):
    assert GROUPED_VALUES == 2**25
    monkeypatch.setattr("micronet_cli.trace.layer_inputs.GROUPED_VALUES", 2 * 4 * 9 * 5)
    images = torch.randn(2, 4, 7, 6)
    assert rows_of(nn.Conv2d(4, 4, 3, groups=4), images).shape == (4, 2 * 5, 9)
    assert rows_of(nn.Conv2d(4, 4, 3), images).shape == (1, 2 * 5 * 4, 36)


def test_neighbours_come_from_all_batches():
    batches = [torch.full((8, 4, 1), float(number)) for number in range(4)]
    rows = rows_of(nn.Linear(1, 1), *batches)
    assert set(rows[0, :32, 0].tolist()) == {0, 1, 2, 3}


def test_rows_lie_where_the_last_ones_did():
    room, inputs = Room(), [(2, [torch.randn(2, 4, 3)])]
    layer = nn.Linear(3, 1)
    found = []
    for per_image in (2, ALL, 2):
        (rows,) = input_rows(layer, inputs, 2, per_image, torch.Generator().manual_seed(0), [room])
        (alone,) = input_rows(layer, inputs, 2, per_image, torch.Generator().manual_seed(0))
        assert torch.equal(rows, alone)
        found.append(rows.data_ptr())
    _, many, few = found
    assert many == few


def test_a_room_is_of_the_type_that_is_asked_for():
    room = Room()
    room.empty(torch.empty(0), 5)
    assert room.empty(torch.empty(0, dtype=torch.float64), 2, 2).dtype == torch.float64
