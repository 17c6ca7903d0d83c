"""Quantisation after training: grids that survive, masks that stay, outputs that come nearer."""

import copy
from typing import NamedTuple

import pytest
import timm
import timm.layers
import torch
from torch import nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.compression.quantization.quantizer import BitsRule, OutputRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import RangeLinear, WeightLSQ
from micronet_cli.functional.calibration import min_max, mse
from micronet_cli.functional.weight_ranges import least_error
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.finite import NotFinite
from micronet_cli.layers.rules import compressible_layers
from tests.trace.test_batch_norm import random_statistics

SHAPE = (3, 8, 8)
QUICK = AdaRound(iterations=150, batch_size=256)


def network(masked=False):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.SiLU(), nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    for layer in compressible_layers(model).values() if masked else ():
        mask = attach_mask(layer).mask
        mask.copy_(torch.rand(mask.shape) > 0.5)
    model.default_cfg = {"input_size": SHAPE}
    return random_statistics(model)


def quantized(masked=False, bits=3, input_bits=8, batches=None, quantizer=None, seed=0, **options):
    model = network(masked)
    settings = PostTraining(**{"rows": 2048, "adaround": QUICK} | options)
    sweep = settings.prepare(model, SHAPE)
    (quantizer or Quantizer({"all": BitsRule(".*")}, weight_bits=bits, activation_bits=input_bits)).attach(model)
    batches = images() if batches is None else batches
    sweep.calibrate(model.eval(), batches)
    lines = list(sweep.layer_by_layer(model, seed=seed).run(batches))
    return model, sweep, lines


def images(count=2):
    return [torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(n)) for n in range(count)]


@torch.no_grad()
def distance(model, sweep):
    return float((model(images()[0]) - sweep.reference(images()[0])).square().mean())


OFF = {"equalize": False, "correct_bias": False, "adaround": None, "weight_range": None}


class Grid(NamedTuple):
    """The integers of a weight."""

    bits: float
    symmetric: bool


GRIDS = {
    "whole bits": Grid(4, symmetric=False),
    "fractional bits": Grid(2.5, symmetric=False),
    "symmetric": Grid(3, symmetric=True),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_rounded_weights_keep_to_the_grid_and_masks_to_zero(masked, grid):
    rules = {"all": BitsRule(".*")}
    quantizer = Quantizer(rules, grid.bits, 8, weight=RangeLinear(symmetric=grid.symmetric))
    model, sweep, lines = quantized(masked, quantizer=quantizer)
    assert [line["layer"] for line in lines] == ["0", "2", "5", "8"]
    for name, layer in compressible_layers(model).items():
        parts = effective_weight(layer)
        assert max(channel.unique().numel() for channel in layer.weight) <= parts.fake_quantize.levels
        # The original is on the grid itself, so nothing is left to round.
        torch.testing.assert_close(layer.weight, original_weight(layer), rtol=1e-5, atol=1e-6)
        floats = sweep.reference.get_submodule(name).weight
        step = 1 / parts.fake_quantize.scale
        assert ((layer.weight - floats).abs() <= 1.5 * step + 1e-5).all()
        if masked:
            assert (layer.weight[~parts.mask] == 0).all()
            assert layer.weight.any()


def test_learned_rounding_is_not_the_nearest_and_lowers_the_error():
    model, _, lines = quantized(**OFF | {"adaround": AdaRound(iterations=500, batch_size=256)})
    plain, _, _ = quantized(**OFF)
    assert not torch.equal(model[2].weight, plain[2].weight)
    assert torch.equal(effective_weight(model[0]).fake_quantize.scale, effective_weight(plain[0]).fake_quantize.scale)
    assert all(line["error"] < line["error_before"] for line in lines)


def test_each_part_brings_the_output_nearer():
    def mean_distance(**options):
        """Over seeds, which draw the rows: one alone may be a bad draw for 150 steps."""
        found = [distance(*quantized(seed=seed, **OFF | options)[:2]) for seed in range(3)]
        return sum(found) / len(found)

    nearest = mean_distance()
    corrected = mean_distance(correct_bias=True)
    rounded = mean_distance(correct_bias=True, adaround=QUICK)
    assert rounded < corrected < nearest


def test_the_rounding_never_ends_above_the_nearest():
    _, _, lines = quantized(**OFF | {"adaround": AdaRound(iterations=1)})
    assert all(line["error"] <= line["error_before"] for line in lines)


def test_corrected_means_are_those_of_the_float_network():
    model, sweep, _ = quantized(bits=2, **OFF | {"correct_bias": True, "rows": 10**6})
    with torch.no_grad():
        for end in (1, 4, 6, 9):  # behind each layer and its BatchNorm
            means = []
            for net in (model, sweep.reference):
                outputs = torch.cat([net[:end](batch) for batch in images()])
                means.append(outputs.transpose(0, 1).flatten(1).mean(1))
            torch.testing.assert_close(*means, rtol=1e-3, atol=1e-3)


def test_ranges_come_from_the_float_network():
    model, sweep, _ = quantized(activation_range=None, **OFF, quantizer=Quantizer(
        {"all": BitsRule(".*")}, outputs={"norm": OutputRule("3")}
    ))  # fmt: skip
    with torch.no_grad():
        seen = [sweep.reference[:5](batch) for batch in images()]
    rate = 0.99 / 1.99
    wanted = rate * seen[0].amax() + (1 - rate) * seen[1].amax()
    assert model[5].input_fake_quantize.high.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert model[3].output_fake_quantize.low < 0
    assert not any(module.training for module in model.modules())
    other, _, _ = quantized(activation_range=mse, input_bits=4, **OFF)
    assert other[5].input_fake_quantize.high < model[5].input_fake_quantize.high


def test_weights_have_their_own_range_or_the_one_that_is_asked_for():
    own, sweep, _ = quantized(bits=2, **OFF)
    fitted, _, _ = quantized(bits=2, **OFF | {"weight_range": least_error})
    for name in compressible_layers(own):
        floats = sweep.reference.get_submodule(name).weight
        assert torch.equal(own.get_submodule(name).weight, WeightFakeQuantize(2)(floats))
        rounded = fitted.get_submodule(name).weight
        torch.testing.assert_close((rounded * floats).flatten(1).sum(1), floats.square().flatten(1).sum(1))


def test_folded_batch_norms_are_corrected_too():
    folding = Quantizer({"all": BitsRule(".*")}, 3, 8, fold_batch_norm=True)
    model, sweep, lines = quantized(quantizer=folding)
    assert isinstance(model[3], nn.Identity)
    assert len(lines) == 4
    plain = quantized(quantizer=copy.deepcopy(folding), **OFF)[0]
    assert distance(model, sweep) < distance(plain, sweep)


def test_other_weight_schemes_are_refused():
    with pytest.raises(ValueError, match=r"quantize\.weight: 0 has LearnedStepWeight; must be range-linear"):
        quantized(quantizer=Quantizer({"all": BitsRule(".*")}, weight=WeightLSQ()))


def test_a_quantised_network_is_refused():
    model = network()
    Quantizer({"all": BitsRule("2")}).attach(model)
    with pytest.raises(ValueError, match="quantised already"):
        PostTraining().prepare(model, SHAPE)


def padding_in_many_ways():
    torch.manual_seed(0)
    return nn.Sequential(
        timm.layers.Conv2dSame(3, 8, 3, stride=2), nn.ReLU(), timm.layers.StdConv2dSame(8, 8, 3, groups=8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), timm.layers.ScaledStdConv2d(8, 4, 3),
    ).eval()  # fmt: skip


def test_whatever_is_a_product_with_its_weight_is_rounded():
    model = padding_in_many_ways()
    before = model(images()[0])
    sweep = PostTraining(rows=2048, adaround=QUICK).prepare(model, SHAPE)
    Quantizer({"all": BitsRule(".*")}, 4, 8).attach(model)
    sweep.calibrate(model.eval(), images())
    work = sweep.layer_by_layer(model)
    assert (work.names, work.left_out) == (["0", "2", "4", "6"], [])
    torch.testing.assert_close(sweep.reference(images()[0]), before)
    nearest = distance(model, sweep)
    lines = list(work.run(images()))
    assert all(line["error"] < line["error_before"] for line in lines)
    assert distance(model, sweep) < nearest


def test_what_is_no_product_of_rows_is_named():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    sweep = PostTraining(equalize=False).prepare(model.eval(), (3, 8))
    Quantizer({"all": BitsRule(".*")}).attach(model)
    work = sweep.layer_by_layer(model)
    assert (work.names, work.left_out) == (["4"], ["0", "2"])


@pytest.mark.parametrize("name", ["images", "rows", "memory_mb"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
        PostTraining(**{name: 0})


@pytest.mark.parametrize("layer", ["0", "8"])
def test_an_output_that_is_not_finite_ends_the_calibration(layer):
    model = network()
    original_weight(model.get_submodule(layer)).data[0, 0] = float("inf")
    sweep = PostTraining(**OFF).prepare(model, SHAPE)
    with pytest.raises(
        ValueError, match=f"network in float is not finite, first in layer {layer}, whose weight is not"
    ):
        sweep.calibrate(model, images())


def test_an_error_that_is_not_finite_names_its_layer():
    model = network()
    original_weight(model[0]).data.mul_(1e25)  # finite, and so is the output, but not its square
    sweep = PostTraining(**OFF, rows=64).prepare(model, SHAPE)
    Quantizer({"all": BitsRule(".*")}).attach(model)
    sweep.calibrate(model.eval(), images())
    with pytest.raises(NotFinite, match=r"^0: what quantisation changes in its output is nan"):
        list(sweep.layer_by_layer(model).run(images()))


def test_operands_of_products_get_their_ranges_from_the_float_network():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=4, img_size=16, patch_size=8, depth=1)
    model.default_cfg = model.pretrained_cfg = {"input_size": (3, 16, 16)}
    batches = [torch.randn(8, 3, 16, 16)]
    expected = model.eval()(batches[0])
    sweep = PostTraining(**OFF, activation_range=min_max).prepare(model, (3, 16, 16))
    Quantizer({"all": BitsRule(".*", None, 8)}, attention=True).attach(model)
    sweep.calibrate(model, batches)
    operands = model.blocks[0].attn.operand_fake_quantize
    assert all(quantizer.seen > 0 and quantizer.high > 0 for quantizer in operands.values())
    assert operands["2"].low >= 0
    assert operands["2"].high <= 1
    error = (model(batches[0]) - expected).abs().max()
    assert 0 < error < 0.05 * expected.abs().max()
    torch.testing.assert_close(sweep.reference(batches[0]), expected)
