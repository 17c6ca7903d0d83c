"""Dead channels are found and taken out; outputs stay."""

import copy

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.compression.pruning.filter_constants import silence
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.pruning.removal import Removal, removed_channels
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import WeightLSQ
from micronet_cli.config import build
from micronet_cli.functional.granularity import Filter
from micronet_cli.layers.effective_weight import attach_mask, effective_weight
from micronet_cli.models.model import Model

RULES = {"conv": SparsityRule("(?!({stem}|{classifier})$).*", 0.3)}


def filter_pruned(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = Model(name).build(10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 1)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
    pruner = Pruner(RULES, granularity=Filter())
    pruner.attach(model)
    pruner.update(1, 1)
    return model


@torch.no_grad()
def check_equal(model, smaller, side):
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(smaller.eval()(images), model.eval()(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "side", "gone"),
    [
        pytest.param(
            "resnet8", 32, {"layer1.0.conv1": 5, "layer2.0.conv1": 10, "layer3.0.conv1": 19}, id="inner channels"
        ),
        pytest.param(
            "resnet10t",
            32,
            {"layer1.0.conv1": 19, "layer2.0.conv1": 38, "layer3.0.conv1": 77, "layer4.0.conv1": 154},
            id="residual channels",
        ),
        pytest.param("efficientnet_b0", 32, {"conv_head": 384}, id="gated and depthwise"),
    ],
)
def test_outputs_stay_when_dead_channels_go(name, side, gone):
    model = filter_pruned(name)
    before = sum(p.numel() for p in model.parameters())
    removal = find_dead_channels(model, (3, side, side)).removal
    assert {layer: len(removal.outputs[layer]) for layer in gone} == gone
    smaller = copy.deepcopy(model)
    removal.attach(smaller)
    check_equal(model, smaller, side)
    assert sum(p.numel() for p in smaller.parameters()) < 0.75 * before


def test_replayed_on_a_fresh_network_the_weights_load():
    model = filter_pruned("resnet8")
    removal = find_dead_channels(model, (3, 32, 32)).removal
    smaller = copy.deepcopy(model)
    removal.attach(smaller)
    fresh = Model("resnet8").build(10)
    Pruner(RULES, granularity=Filter()).attach(fresh)
    config = {"_target_": "micronet_cli.compression.pruning.removal.Removal", "outputs": removal.outputs}
    build(config | {"inputs": removal.inputs}, "test").attach(fresh)
    fresh.load_state_dict(smaller.state_dict())
    check_equal(model, fresh, 32)


def test_channels_stay_in_multiples():
    model = filter_pruned("resnet8")
    removal = find_dead_channels(model, (3, 32, 32), multiple=8).removal
    # 5 of 16, 10 of 32 and 19 of 64 are dead; 16, 24 and 48 stay.
    assert {layer: len(gone) for layer, gone in removal.outputs.items() if "conv" in layer} == {
        "layer2.0.conv1": 8,
        "layer3.0.conv1": 16,
    }
    removal.attach(smaller := copy.deepcopy(model))
    check_equal(model, smaller, 32)


def test_nothing_is_found_in_a_dense_network():
    removal = find_dead_channels(Model("resnet8").build(10), (3, 32, 32)).removal
    assert (removal.outputs, removal.inputs) == ({}, {})


def test_a_shift_that_training_left_keeps_its_channel():
    model = filter_pruned("resnet8")
    dropped = effective_weight(model.layer1[0].conv1).mask.flatten(1).any(1).logical_not().nonzero()[0]
    model.layer1[0].bn1.bias.data[dropped] = 0.1
    removal = find_dead_channels(model, (3, 32, 32)).removal
    assert len(removal.outputs["layer1.0.conv1"]) == 4


def test_channels_that_nobody_reads_go_too():
    model = Model("resnet8").build(10)
    attach_mask(model.layer1[0].conv2).mask[:, :3] = False
    removal = find_dead_channels(model, (3, 32, 32)).removal
    assert removal.outputs == {"layer1.0.conv1": [0, 1, 2], "layer1.0.bn1": [0, 1, 2]}
    smaller = copy.deepcopy(model)
    removal.attach(smaller)
    check_equal(model, smaller, 32)


def test_quantised_networks_lose_only_what_leaves_their_outputs():
    model = filter_pruned("resnet8")
    Quantizer({"all": BitsRule(".*")}, 4, None).attach(model)  # the range of a reader may hang on a dead channel
    smaller = copy.deepcopy(model)
    find_dead_channels(model, (3, 32, 32)).removal.attach(smaller)
    check_equal(model, smaller, 32)


def test_learned_steps_are_cut_with_their_channels():
    model = Model("resnet8").build(10)
    Quantizer({"all": BitsRule(".*")}, 4, None, weight=WeightLSQ()).attach(model)
    attach_mask(model.layer1[0].conv1)
    Removal({"layer1.0.conv1": [0, 5]}, {}).attach(model)
    effective = effective_weight(model.layer1[0].conv1)
    assert effective.fake_quantize.step.shape == (14,)
    assert effective.mask.shape == model.layer1[0].conv1.weight.shape == (14, 16, 3, 3)


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        pytest.param({"layer9": [0]}, "no layer layer9", id="unknown layer"),
        pytest.param({"conv1": [16]}, "conv1 has 16 channels", id="channel beyond the last"),
    ],
)
def test_what_is_not_there_cannot_go(outputs, complaint):
    with pytest.raises(ValueError, match=complaint):
        Removal(outputs, {}).attach(Model("resnet8").build(10))


def test_batch_norm_of_a_dropped_filter_is_silent_at_every_step():
    norm = nn.BatchNorm2d(2)
    nn.init.ones_(norm.bias)
    silence([norm.weight, norm.bias], torch.tensor([True, False]))
    assert (norm.weight.tolist(), norm.bias.tolist()) == ([1.0, 0.0], [1.0, 0.0])
    model = filter_pruned("resnet8")
    for conv, bn in ((model.layer1[0].conv1, model.layer1[0].bn1), (model.layer3[0].conv2, model.layer3[0].bn2)):
        kept = effective_weight(conv).mask.flatten(1).any(1)
        assert torch.equal(bn.bias != 0, kept)
        assert torch.equal(bn.weight != 0, kept)


def test_bias_of_a_dropped_filter_is_silent_where_no_batch_norm_follows():
    model = timm.create_model("test_vit", num_classes=3)
    for block in model.blocks:
        nn.init.ones_(block.mlp.fc1.bias)
    pruner = Pruner({"mlp": SparsityRule(r".*\.fc1", 0.5)}, granularity=Filter())
    pruner.attach(model)
    pruner.update(1, 1)
    hidden = model.blocks[0].mlp.fc1
    kept = effective_weight(hidden).mask.any(1)
    assert torch.equal(hidden.bias, kept.float())
    found = find_dead_channels(model.double().eval(), (3, 160, 160))
    dropped = (~kept).nonzero().flatten().tolist()
    assert found.removal.outputs["blocks.0.mlp.fc1"] == dropped


def test_removals_are_found_among_a_networks_compressors():
    removal = {"outputs": {"a": [0]}, "inputs": {}}
    target = f"{Removal.__module__}.{Removal.__qualname__}"
    assert removed_channels([{"_target_": "other", "rules": {}}, {"_target_": target, **removal}]) == [removal]
