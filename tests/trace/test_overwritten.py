"""What a network writes into its own tensors is undone."""

import torch
from torch import nn

from micronet_cli.trace.observe import observe
from micronet_cli.trace.overwritten import Overwritten


def test_the_first_values_are_restored():
    tensor = torch.ones(3)
    overwritten = Overwritten()
    overwritten.keep(tensor)
    tensor.zero_()
    overwritten.keep(tensor)
    overwritten.restore()
    assert tensor.tolist() == [1, 1, 1]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("range", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.range[1:].fill_(7)
        return x * self.calls


def test_a_network_that_counts_its_calls_is_left_as_it_was():
    model = Counting()
    observe(model, (3, 4, 4))
    assert model.calls == 0
    assert model.range.tolist() == [0, 0]
