"""Quantised outputs (residual adds, pools) and training with folded BatchNorms."""

import pytest
import timm
import torch
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.compression.quantization.quantizer import BitsRule, OutputRule, Quantizer
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.scoring.official import Official

ADDS = r"bn1|layer\d\.\d(\.bn2)?"


def quantised(**options) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("resnet8", num_classes=10)
    Quantizer({"conv": BitsRule(".*")}, **options).attach(model)
    model.train()
    model(torch.randn(8, 3, 32, 32))
    return model.eval()


def test_quantised_outputs_take_at_most_their_levels():
    model = quantised(outputs={"adds": OutputRule(ADDS, activation_bits=3)})
    seen = {}
    for name in ("bn1", "layer1.0", "layer2.0.bn2"):
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    model(torch.randn(4, 3, 32, 32))
    assert len(seen) == 3
    assert all(1 < out.unique().numel() <= 8 for out in seen.values())


def test_an_add_of_quantised_operands_counts_at_their_width():
    size, rules = (3, 32, 32), Official(task="cifar100")

    def ops(model):  # of the adds alone
        return sum(c.math_ops for c in score_with(model, rules, size).charges if c.part == "element-wise")

    full, reduced = (ops(quantised(outputs=outputs)) for outputs in ({}, {"adds": OutputRule(ADDS, activation_bits=8)}))
    assert full > 0
    assert reduced == full / 4


def test_a_later_rule_leaves_an_output_in_float():
    rules = {"adds": OutputRule(ADDS), "not_the_stem": OutputRule("bn1", activation_bits=None)}
    model = quantised(outputs=rules)
    assert getattr(model.bn1, "output_fake_quantize", None) is None
    assert isinstance(model.layer1[0].output_fake_quantize, ActivationFakeQuantize)


def test_an_output_rule_without_a_module_names_near_misses():
    with pytest.raises(ValueError, match=r"quantize\.outputs\.adds\.match='layr1': .*layer1"):
        quantised(outputs={"adds": OutputRule("layr1")})


def test_output_bits_are_checked_by_config_path():
    with pytest.raises(ValueError, match="activation_bits=0: must be 1 to 16 bits"):
        OutputRule("x", activation_bits=0)


def test_a_folded_network_trains_loads_and_has_no_batch_norm(tmp_path):
    config = {
        "_target_": "micronet_cli.compression.quantization.quantizer.Quantizer",
        "fold_batch_norm": True,
        "outputs": {"adds": {"match": ADDS}},
        "rules": {"conv": {"match": ".*"}},
    }
    model = quantised(fold_batch_norm=True, outputs={"adds": OutputRule(ADDS)})
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model.train()
    model(torch.randn(8, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    network = Network(
        model.eval(), {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}, list("abcdefghij"),
        InputSpec.of(model), [config], {},
    )  # fmt: skip
    checkpoint.save(tmp_path / "folded.safetensors", network, {})
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(checkpoint.load(str(tmp_path / "folded.safetensors")).model(images), model(images))


def test_folding_into_quantised_weights_is_refused():
    model = quantised()
    with pytest.raises(ValueError, match=r"quantize\.fold_batch_norm=true: conv1 is quantised already"):
        Quantizer({"conv": BitsRule(".*")}, fold_batch_norm=True).attach(model)
