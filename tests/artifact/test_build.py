"""The header's network is built within its bounds, and only channels that it has are taken out."""

import pytest
import torch
from torch import nn

from micronet_cli.artifact.build import FREE_ELEMENTS, MAX_ELEMENTS_A_BYTE, bare_network, built, most_elements
from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.header import described
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.models.model import Model
from tests.artifact.networks import CLASSES


def named(name="resnet8", **more):
    return {"model": {"_target_": "micronet_cli.models.model.Model", "name": name}, "classes": CLASSES} | more


def elements(model: nn.Module) -> int:
    return sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])


def tensors(model: nn.Module) -> int:
    return len([*model.parameters(), *model.buffers()])


def test_small_files_are_trusted_with_the_free_elements_and_large_ones_with_more():
    turn = FREE_ELEMENTS // MAX_ELEMENTS_A_BYTE
    assert most_elements(0) == FREE_ELEMENTS
    assert most_elements(turn) == FREE_ELEMENTS
    assert most_elements(turn + 1) == FREE_ELEMENTS + MAX_ELEMENTS_A_BYTE


def test_bare_network_takes_no_memory_and_has_the_classes():
    model = bare_network(named())
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    assert model.get_classifier().out_features == len(CLASSES)


def test_network_as_large_as_its_bounds_is_built():
    whole = bare_network(named())
    again = bare_network(named(), tensors(whole), elements(whole))
    assert elements(again) == elements(whole)


@pytest.mark.parametrize(
    "less",
    [pytest.param((1, 0), id="one tensor less"), pytest.param((0, 1), id="one element less")],
)
def test_network_beyond_its_bounds_is_refused(less):
    whole = bare_network(named())
    fewer_tensors, fewer_elements = less
    with pytest.raises(Damaged, match="header: model: a far larger network than the file holds"):
        bare_network(named(), tensors(whole) - fewer_tensors, elements(whole) - fewer_elements)


def test_a_tensor_that_is_written_over_counts_once(monkeypatch):
    def build(self, classes):
        layer = nn.Linear(4, 4)  # 2 tensors
        layer.register_buffer("vector", torch.zeros(4))
        for _ in range(10):  # as a spectral norm does
            layer.vector = torch.zeros(4)
        return layer

    monkeypatch.setattr(Model, "build", build)
    assert tensors(bare_network(named(), 3, 1000)) == 3
    with pytest.raises(Damaged, match="far larger"):
        bare_network(named(), 2, 1000)


def test_bounds_end_with_the_trial_even_where_it_fails():
    with pytest.raises(Damaged, match="far larger"):
        bare_network(named(), 1, 1)
    assert sum(p.numel() for p in nn.Linear(4, 4).parameters()) == 20


def test_arguments_that_timm_does_not_take_are_refused():
    header = named()
    header["model"]["args"] = {"no_such_argument": 1}
    with pytest.raises(Damaged, match=r"header: model: resnet8 cannot be built \("):
        bare_network(header)


def test_built_network_has_values():
    header = named()
    model = built(described(header), header)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_channels_are_taken_out():
    model = bare_network(named())
    outputs = {name: [0, 3] for name in ("layer1.0.conv1", "layer1.0.bn1")}
    removal = {"outputs": outputs, "inputs": {"layer1.0.conv2": [0, 3]}}
    thinner = bare_network(named(channels=[removal]))
    assert thinner.layer1[0].conv1.out_channels == model.layer1[0].conv1.out_channels - 2
    assert thinner.layer1[0].conv2.in_channels == model.layer1[0].conv2.in_channels - 2
    Removal(**removal).attach(model)
    assert elements(thinner) == elements(model)


BAD_CHANNELS = {
    "no list": ({}, "channels: must be a list"),
    "no removal": ([3], "channels: other fields than a removal"),
    "field missing": ([{"outputs": {}}], "channels: other fields than a removal"),
    "foreign field": ([{"outputs": {}, "inputs": {}, "code": {}}], "channels: other fields than a removal"),
    "lists": ([{"outputs": [], "inputs": []}], "channels: other fields than a removal"),
    "unknown layer": ([{"outputs": {"conv9": [0]}, "inputs": {}}], "'conv9' is no layer of the network"),
    "a block": ([{"outputs": {"layer1": [0]}, "inputs": {}}], "'layer1' is no layer of the network"),
    "one channel": ([{"outputs": {"conv1": 0}, "inputs": {}}], "'conv1': not numbers of channels"),
    "a negative channel": ([{"outputs": {"conv1": [-1]}, "inputs": {}}], "'conv1': not numbers of channels"),
    "true": ([{"outputs": {"conv1": [True]}, "inputs": {}}], "'conv1': not numbers of channels"),
    "beyond the layer": ([{"outputs": {"conv1": [999]}, "inputs": {}}], "header: channels: "),
}


@pytest.mark.parametrize("case", BAD_CHANNELS)
def test_channels_that_are_not_there_are_refused(case):
    channels, message = BAD_CHANNELS[case]
    with pytest.raises(Damaged, match=message):
        bare_network(named(channels=channels))
