"""Block after block: the order, what it is better at, what a resumed run goes on with, what little memory changes."""

import copy
import math

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.quantization.block_by_block import BlockByBlock
from micronet_cli.compression.quantization.block_reconstruction import BlockReconstruction
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.finite import NotFinite
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from tests.compression.quantization.test_layer_by_layer import same
from tests.trace.test_batch_norm import random_statistics

SHAPE = (3, 8, 8)
QUICK = BlockReconstruction(iterations=10, batch_size=8)


def images(count=2):
    return [torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(n)) for n in range(count)]


def calibrated(model=None, weight_bits=3, activation_bits=4, **options):
    if model is None:
        torch.manual_seed(0)
        model = random_statistics(timm.create_model("resnet8"))
    settings = PostTraining(**{"rows": 512, "block": QUICK, "adaround": None} | options)
    sweep = settings.prepare(model, SHAPE)
    Quantizer({"all": BitsRule(".*")}, weight_bits, activation_bits).attach(model)
    sweep.calibrate(model.eval(), images())
    return sweep, model


NAMES = ["conv1", "layer1.0", "layer2.0", "layer3.0", "linear"]


def test_layers_of_a_block_go_together_and_others_alone():
    sweep, model = calibrated()
    work = sweep.layer_by_layer(model)
    assert isinstance(work, BlockByBlock)
    assert work.names == NAMES
    assert work.left_out == []
    lines = list(work.run(images()))
    assert [line["layer"] for line in lines] == NAMES
    assert all(line["error"] <= line["error_before"] for line in lines[1:4])


@pytest.mark.parametrize("done", [1, 2, 4])
def test_a_resumed_run_ends_alike(done):
    sweep, whole = calibrated()
    lines = list(sweep.layer_by_layer(whole).run(images()))
    sweep, model = calibrated()
    work = sweep.layer_by_layer(model)
    before = [line for _, line in zip(range(done), work.run(images()), strict=False)]
    state = copy.deepcopy(work.state())
    sweep, model = calibrated()
    again = sweep.layer_by_layer(model)
    again.restore(state)
    assert before + list(again.run(images())) == lines
    assert same(model, whole)


def test_little_memory_changes_nothing(tmp_path):
    sweep, model = calibrated()
    lines = list(sweep.layer_by_layer(model).run(images()))
    sweep, other = calibrated()
    work = sweep.layer_by_layer(other, tmp_path)
    work.memory_mb = 0
    assert list(work.run(images())) == lines
    assert same(model, other)


def test_a_network_without_blocks_goes_layer_by_layer():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    plain.default_cfg = {"input_size": SHAPE}
    ends = []
    for block in (QUICK, None):
        sweep, model = calibrated(copy.deepcopy(plain), block=block)
        work = sweep.layer_by_layer(model)
        ends.append((list(work.run(images())), model))
    assert ends[0][0] == ends[1][0]
    assert same(ends[0][1], ends[1][1])


def test_a_block_that_stays_in_float_is_none():
    torch.manual_seed(0)
    model = timm.create_model("resnet8")
    sweep = PostTraining(block=QUICK).prepare(model, SHAPE)
    Quantizer({"all": BitsRule("(?!layer2).*")}, 3, 4).attach(model)
    assert sweep.layer_by_layer(model).names == ["conv1", "layer1.0", "layer3.0", "linear"]


def test_a_block_that_learns_nothing_of_use_stays_at_the_nearest():
    sweep, model = calibrated(correct_bias=False, block=BlockReconstruction(iterations=1, width_lr=0.9))
    nearest = copy.deepcopy(model)
    lines = list(sweep.layer_by_layer(model).run(images()))
    assert [line["learned"] for line in lines] == [False] * 5
    assert same(model, nearest)


def test_without_learned_rounding_weights_stay_at_the_nearest():
    sweep, model = calibrated()
    nearest = copy.deepcopy(model)
    list(sweep.layer_by_layer(model).run(images()))
    quantizers = [module.layer1[0].conv1.input_fake_quantize for module in (model, nearest)]
    assert quantizers[0].high != quantizers[1].high
    assert torch.equal(model.layer1[0].conv1.weight, nearest.layer1[0].conv1.weight)


def test_what_is_not_finite_is_named():
    sweep, model = calibrated()
    with torch.no_grad():
        model.layer1[0].bn2.weight.fill_(math.inf)
    with pytest.raises(NotFinite, match=r"layer1\.0: what quantisation changes"):
        list(sweep.layer_by_layer(model).run(images()))


def test_a_block_costs_its_layers_and_its_steps():
    sweep, model = calibrated()
    alone, _ = calibrated(block=None)
    block = sweep.blocks[0]
    # 2 convolutions of 16 channels at 8x8; 2 BatchNorms, 2 ReLUs and an addition beside them.
    assert block.multiplications == 2 * 16 * 16 * 9 * 64
    assert block.elements == 7 * 16 * 64
    of_layers = sum(alone.layer_by_layer(model).costs(images())[1:3])
    of_steps = 10 * 8 * (3 * block.multiplications + 200 * block.elements)
    assert sweep.layer_by_layer(model).costs(images())[1] == of_layers + of_steps
