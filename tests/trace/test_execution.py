"""Which modules run, and who writes over what another gave: what a partial replay goes by."""

import torch
from torch import nn

from micronet_cli.trace.execution import Execution
from micronet_cli.trace.observe import observe


def execution(model, shape=(3, 4, 4)):
    return Execution.of(observe(model, shape))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x)
        self.act(x)
        y = self.second(x)
        y.mul_(2)
        return x + y


def test_outputs_that_are_written_to_later_are_named():
    assert execution(InPlace()).overwritten == {("first", 0), ("second", 0)}


def test_a_module_that_writes_to_its_input_is_a_writer_and_its_parent_is_not():
    assert execution(InPlace()).writers == {"act"}


def test_a_network_that_writes_to_its_images_is_a_writer_itself():
    assert execution(nn.Sequential(nn.ReLU(inplace=True))).writers == {"", "0"}


def test_writes_through_a_slice_count():
    class Slice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            y[:, :1] = 0
            return y

    assert execution(Slice()).overwritten == {("conv", 0)}


def test_nothing_is_overwritten_without_writes_in_place():
    found = execution(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    assert not found.overwritten
    assert not found.writers


def test_calls_of_one_module_are_told_apart():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x).relu_()) + 1

    assert execution(Again()).overwritten == {("conv", 0)}


def test_modules_that_are_not_called_are_left_out():
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    model.unused = nn.Linear(2, 2)
    model.forward = model[0].forward
    assert "unused" not in execution(model).modules
    assert execution(nn.Sequential(nn.Identity())).modules == {"", "0"}


def test_memory_that_several_modules_return_counts_once():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Identity())
    assert execution(model, (4, 1, 1)).output_bytes == 4 * (4 + 8)


def test_half_precision_takes_half_the_memory():
    model = nn.Sequential(nn.Linear(4, 8)).to(torch.bfloat16)
    assert execution(model, (1, 1, 4)).output_bytes == 2 * 8
