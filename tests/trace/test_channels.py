"""Where the channels of a value are in a view of it, and which operation alone reads a value."""

import pytest
import torch
from torch import nn

from micronet_cli.trace.channels import Channels, Readers
from micronet_cli.trace.known_tensors import layout_of
from micronet_cli.trace.layouts import Read
from micronet_cli.trace.observe import observe


def dim_in(tensor, view, dim=1):
    return Channels(0, layout_of(tensor), dim).dim_in(Read(0, layout_of(view)))


IMAGE = torch.empty(1, 6, 4, 5)
VIEWS = {
    "itself": (IMAGE, 1),
    "flattened": (IMAGE.flatten(2), 1),
    "flattened with the channels": (IMAGE.flatten(1), None),
    "transposed": (IMAGE.flatten(2).transpose(1, 2), 2),
    "channels split": (IMAGE.unflatten(1, (2, 3)), None),
    "slice of channels": (IMAGE[:, :3], None),
    "slice of pixels": (IMAGE[..., 1:], None),
    "batch dropped": (IMAGE[0], 0),
    "pixels split": (IMAGE.unflatten(2, (2, 2)), 1),
    "expanded": (IMAGE.expand(2, 6, 4, 5), None),
}


@pytest.mark.parametrize("name", VIEWS)
def test_channels_in_a_view_are_found_or_not_told(name):
    view, dim = VIEWS[name]
    assert dim_in(IMAGE, view) == dim


def test_channels_of_a_square_tensor_are_told_by_their_stride():
    tokens = torch.empty(1, 4, 4)
    assert dim_in(tokens, tokens.transpose(1, 2), dim=1) == 2
    assert dim_in(tokens, tokens.transpose(1, 2), dim=2) == 1
    assert dim_in(tokens, tokens.transpose(1, 2)[0], dim=1) == 1


def test_one_channel_is_found_only_where_nothing_changed():
    image = torch.empty(1, 1, 4, 5)
    assert dim_in(image, image) == 1
    assert dim_in(image, image.flatten(2)) is None


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


READERS = {
    "one operation": (lambda x: (x + 1).exp(), 1),
    "returned": (lambda x: x + 1, None),
    "returned and read": (lambda x: (y := x + 1, y.exp()), None),
    "two operations": (lambda x: (y := x + 1).exp() + y.sin(), None),
    "two layouts in one operator": (lambda x: (y := x + 1) * y.transpose(2, 3), None),
    "one layout twice in one operator": (lambda x: (y := x + 1) * y, 1),
    "an in-place writer": (lambda x: (x + 1).relu_(), 1),
    "an in-place writer and a reader before it": (lambda x: ((y := x + 1).exp(), y.relu_())[1], None),
    "a sum with another value": (lambda x: (x + 1) * x, None),
}


@pytest.mark.parametrize("name", READERS)
def test_the_sole_reader_reads_the_value_once_and_nothing_else(name):
    function, reader = READERS[name]
    network = observe(Function(function), (2, 4, 4))
    made = network.ops[0].outputs[0]
    assert Readers(network).sole(made) == reader


def test_readers_of_a_returned_value_are_not_told():
    network = observe(Function(lambda x: (x + 1, x.exp())), (2, 4, 4))
    readers = Readers(network)
    assert readers.all(network.ops[0].inputs[0]) == [0, 1]
    assert readers.all(network.outputs[0]) is None
