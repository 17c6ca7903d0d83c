"""Prices of options are the scorer's own."""

import pytest
import timm
import torch

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.explore.prices import AS_IT_IS, Option, Prices
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from micronet_cli.scoring import rule_set, score

SHAPE = (3, 16, 16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("resnet8", num_classes=5).eval()


OPTIONS = {
    "all three": Option(sparsity=0.5, weight_bits=3, activation_bits=6),
    "both bits": Option(weight_bits=4, activation_bits=4),
    "sparsity": Option(sparsity=0.75),
    "weight bits": Option(weight_bits=2),
    "input bits": Option(activation_bits=8),
}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS.keys())
def test_prices_are_what_the_compressed_network_costs(model, option):
    """One layer compressed by the compressors themselves, all others as they are."""
    prices = Prices(model, rule_set("official"), SHAPE)
    layer, others = "layer2.0.conv1", ["conv1", "layer1.0.conv1", "linear"]
    expected = prices.rest([layer, *others], "score") + prices.of(layer, option, "score")
    expected += sum(prices.of(other, AS_IT_IS, "score") for other in others)
    if option.sparsity:
        pruner = Pruner({"one": SparsityRule(r"layer2\.0\.conv1", option.sparsity)})
        pruner.attach(model)
        pruner.update(1, 1)
    if option.weight_bits or option.activation_bits:
        bits = BitsRule(r"layer2\.0\.conv1", option.weight_bits, option.activation_bits)
        Quantizer({"one": bits}).attach(model)
    assert score(model, SHAPE)["micronet_score"] == pytest.approx(expected, rel=1e-9)


def test_prices_leave_the_network_alone(model):
    before = score(model, SHAPE)
    prices = Prices(model, rule_set("official"), SHAPE)
    whole = {f: prices.rest([], f) for f in ("score", "storage_bytes", "math_ops")}
    assert [whole["score"], whole["storage_bytes"], whole["math_ops"]] == pytest.approx(
        [before["micronet_score"], before["storage_bytes"], before["math_ops"]]
    )
    prices.of("conv1", Option(0.9, 2, 3), "score")
    assert prices.of("conv1", AS_IT_IS, "score") > prices.of("conv1", Option(0.9, 2, 3), "score")
    assert score(model, SHAPE) == before
