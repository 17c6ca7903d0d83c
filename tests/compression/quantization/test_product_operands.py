"""``attention: true``: every product of a vision transformer has integer operands, and files bring them back."""

import copy

import pytest
import timm
import torch
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.compression.quantization.activation_modules import LearnedStepActivation
from micronet_cli.compression.quantization.activation_quantizers import PACT, ActivationLSQ, ActivationLSQPlus
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.products import operand_fake_quantizers
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models.model import InputSpec, state_input
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.scoring.official import Official

SIDE = 32
HIDDEN = {"hidden": BitsRule("(?!{stem}$).*")}
ARGS = {"img_size": SIDE, "patch_size": 8}
IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, **ARGS)
    state_input(model, (3, SIDE, SIDE))
    return model


def quantised(rules=HIDDEN, **options) -> nn.Module:
    model = transformer()
    Quantizer(rules, **options, attention=True).attach(model)
    model.train()(IMAGES)
    return model.eval()


def operands(model) -> dict[str, ActivationFakeQuantize]:
    found = {}
    for name, module in model.named_modules():
        for number, quantizer in operand_fake_quantizers(module).items():
            found[f"{name} {number}"] = quantizer
    return found


def test_every_product_but_the_stems_is_charged_at_the_bits_of_both_operands():
    charges = score_with(quantised(weight_bits=4, activation_bits=8), Official(), (3, SIDE, SIDE)).charges
    bits = {charge.layer: charge.bits for charge in charges if charge.part == "multiplies"}
    assert bits.pop("patch_embed.proj") == "32x32"
    attention = {layer for layer in bits if layer.endswith(".attn")}
    assert len(attention) == 6
    assert {bits.pop(layer) for layer in attention} == {"8x8"}
    assert set(bits.values()) == {"4x8"}


def test_operands_take_their_levels_and_probabilities_are_unsigned():
    model = quantised(activation_bits=3)
    seen = {}
    for name, quantizer in operands(model).items():
        quantizer.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    model(IMAGES)
    assert len(seen) == 6 * 4
    assert all(1 < out.unique().numel() <= 8 for out in seen.values())
    for block in range(6):
        name = f"blocks.{block}.attn 2"
        assert seen[name].min() >= 0
        _, zero_point = operands(model)[name].qparams()
        assert zero_point == 0
        assert operands(model)[name](torch.zeros(1)) == 0


def test_with_many_levels_logits_are_those_of_the_network_in_float():
    model = transformer().eval()
    expected = model(IMAGES)
    # 16 bits: what is left is attention taken apart, which moves logits by less than 1e-5.
    found = quantised({"none": BitsRule(".*", None, None), "attention": BitsRule(r".*\.attn", None, 16)})
    assert [name for name, layer in compressible_layers(found).items() if hasattr(layer, "input_fake_quantize")] == []
    torch.testing.assert_close(found(IMAGES), expected, rtol=0, atol=1e-4)
    assert not torch.equal(found(IMAGES), expected)


def test_bits_and_scheme_are_the_matching_rules_or_the_quantisers_own():
    rules = {
        "layers": BitsRule(".*head"),
        "second": BitsRule(r"blocks\.1\.attn", activation_bits=5, activation=ActivationLSQ()),
        "third": BitsRule(r"blocks\.2\.attn", activation_bits=None),
    }
    quantizer = Quantizer(rules, weight_bits=4, activation_bits=6, attention=True)
    model = transformer()
    quantizer.attach(model)
    bits = {name: module.bits for name, module in operands(model).items()}
    assert {bits[f"blocks.0.attn {number}"] for number in range(4)} == {6}
    assert {bits[f"blocks.1.attn {number}"] for number in range(4)} == {5}
    assert isinstance(operands(model)["blocks.1.attn 2"], LearnedStepActivation)
    assert not any(name.startswith("blocks.2.") for name in bits)
    resolved = quantizer.resolve(model)
    assert resolved["head"] == ("layers", 4, 6)
    assert resolved["blocks.0.attn"] == ("attention", None, 6)
    assert resolved["blocks.1.attn"] == ("second", None, 5)
    assert resolved["blocks.2.attn"] == ("third", None, None)


@pytest.mark.parametrize("scheme", [ActivationLSQ(), ActivationLSQPlus(), PACT()], ids=["lsq", "lsq+", "pact"])
def test_learned_steps_of_operands_get_gradients(scheme):
    model = quantised(activation=scheme).train()
    model(3 * IMAGES).square().sum().backward()
    gradients = [quantizer.step.grad for quantizer in operands(model).values()]
    assert len(gradients) == 24
    # PACT's step learns from clipped values alone, which not every operand has.
    learning = sum(bool(gradient) for gradient in gradients)
    assert learning >= (6 if isinstance(scheme, PACT) else 24)


def test_a_copy_observes_for_itself():
    model = quantised()
    before = {name: quantizer.high.clone() for name, quantizer in operands(model).items()}
    average = copy.deepcopy(model).train()
    average(3 * IMAGES)
    assert all(quantizer.high == before[name] for name, quantizer in operands(model).items())
    assert any(quantizer.high != before[name] for name, quantizer in operands(average).items())


def test_a_checkpoint_brings_them_back(tmp_path):
    config = {
        "_target_": "micronet_cli.compression.quantization.quantizer.Quantizer",
        "rules": {"hidden": {"match": "(?!{stem}$).*"}},
        "attention": True,
    }
    model = quantised()
    description = {"_target_": "micronet_cli.models.model.Model", "name": "test_vit", "args": ARGS}
    network = Network(model, description, ["a", "b", "c"], InputSpec.of(model, SIDE), [config])
    checkpoint.save(tmp_path / "best.safetensors", network, {})
    loaded = checkpoint.load(str(tmp_path / "best.safetensors")).model.eval()
    assert len(operands(loaded)) == 24
    assert torch.equal(loaded(IMAGES), model(IMAGES))


def test_attaching_again_replaces_them_and_frees_what_a_rule_leaves_in_float():
    model = quantised(activation_bits=8)
    rules = {"attention": BitsRule(r"blocks\.0\.attn", activation_bits=None), "head": BitsRule("head")}
    Quantizer(rules, activation_bits=2, attention=True).attach(model)
    assert len(operands(model)) == 5 * 4
    assert {quantizer.bits for quantizer in operands(model).values()} == {2}


def test_ranges_freeze_with_those_of_the_inputs():
    model = transformer()
    quantizer = Quantizer(HIDDEN, attention=True, freeze_at=0.5)
    quantizer.attach(model)
    quantizer.update(1, 2)
    assert all(operand.frozen for operand in operands(model).values())


def test_a_network_without_such_products_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"quantize\.attention=true: the network has no product"):
        Quantizer({"all": BitsRule(".*")}, attention=True).attach(model)


class OfTorch(nn.Module):
    """Attention inside a function of torch's."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.default_cfg = {"input_size": (1, 4, 4)}

    def forward(self, x):
        (x,) = x.unbind(1)
        return self.attention(x, x, x, need_weights=True)[0]


def test_products_out_of_reach_are_named_with_a_way_out():
    with pytest.raises(ValueError, match=r"the products of attention \(MultiheadAttention\) are out of reach"):
        Quantizer({"all": BitsRule(".*")}, attention=True).attach(OfTorch())
    rules = {"all": BitsRule(".*"), "float": BitsRule("attention", activation_bits=None)}
    model = OfTorch()
    Quantizer(rules, attention=True).attach(model)
    assert operands(model) == {}
