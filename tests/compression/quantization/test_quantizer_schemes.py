"""Every quantiser of ``conf/quantize``, on tensors: levels, zeros, gradients, copies, checkpoints, score."""

import copy
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.compression.quantization.activation_quantizers import (
    PACT,
    ActivationLSQ,
    LearnedStepActivation,
    TrackedRange,
)
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.compression.quantization.weight_quantizers import Binary, DoReFa, RangeLinear, Ternary, WeightLSQ
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.functional.calibration import percentile
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.scoring.official import Official
from micronet_cli.trace.trace import Trace

CONF = Path(__file__).parents[3] / "conf/quantize"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "none")
ALL = {"all": BitsRule(".*")}


def config(name):
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))


def quantized(name, masked=False, activation=nn.ReLU):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, padding=1), activation(),
        nn.Conv2d(8, 8, 3, groups=8), activation(), nn.Flatten(), nn.Linear(288, 4),
    )  # fmt: skip
    for layer in compressible_layers(model).values() if masked else ():
        mask = attach_mask(layer).mask
        mask.copy_(torch.rand(mask.shape) > 0.5)
    compressor = build(config(name), "quantize")
    compressor.attach(model)
    return model, compressor


def train(model, steps=3, lr=0.01):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model.train()(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def inputs_of(model, images):
    seen = {}
    handles = [
        layer.register_forward_hook(lambda m, inputs, o, name=name: seen.__setitem__(name, inputs[0]))
        for name, layer in compressible_layers(model).items()
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_trained_tensors_keep_to_the_claimed_levels(name, masked, activation):
    if masked and name == "binary":
        masked = False
    model, compressor = quantized(name, masked, activation)
    train(model)
    seen = inputs_of(model, torch.randn(16, 3, 8, 8))
    for layer_name, (_, weight_bits, input_bits) in compressor.resolve(model).items():
        layer = model.get_submodule(layer_name)
        parts = effective_weight(layer)
        levels = int(2**weight_bits)
        assert parts.fake_quantize.levels <= levels
        assert max(channel.unique().numel() for channel in layer.weight) <= levels
        if masked:
            assert (layer.weight[~parts.mask] == 0).all()
        assert layer.weight.unique().numel() > 1
        if input_bits is not None:
            assert 1 < seen[layer_name].unique().numel() <= int(2**input_bits)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_of_inputs_stay_zero(name):
    model, _ = quantized(name, activation=nn.SiLU)
    train(model)
    for layer in compressible_layers(model).values():
        quantizer = getattr(layer, "input_fake_quantize", None)
        if quantizer is not None:
            assert quantizer(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_weights_and_learned_steps(name):
    model, _ = quantized(name)
    model.train()(3 * torch.randn(64, 3, 8, 8)).square().mean().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # LSQ+'s offset learns from clipped values alone; behind a ReLU none lies below.
    assert [n for n in missing if not n.endswith("beta")] == []


@pytest.mark.parametrize("name", NAMES)
def test_copies_learn_apart(name):
    model, _ = quantized(name)
    copied = copy.deepcopy(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(copied)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert any(not torch.equal(before[key], value) for key, value in copied.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_gives_the_same_logits_and_goes_on_learning(name, tmp_path):
    network_config = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8", "num_classes": 10}
    model = build(network_config, "model").build()
    build(config(name), "quantize").attach(model)
    train_images = torch.randn(4, 3, 32, 32)
    model.train()(train_images).square().mean().backward()
    spec = InputSpec((3, 32, 32), (0.0,) * 3, (1.0,) * 3, "bicubic", 1.0)
    network = Network(model.eval(), network_config, [str(i) for i in range(10)], spec, [config(name)])
    checkpoint.save(tmp_path / "a.safetensors", network, {})
    loaded = checkpoint.load(str(tmp_path / "a.safetensors")).model
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    steps = {key: value.clone() for key, value in loaded.state_dict().items() if key.endswith(("step", "beta"))}
    loaded.train()(100 * images)  # a later batch does not start the steps anew
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in steps.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_score_counts_claimed_bits(name):
    model, compressor = quantized(name)
    train(model)
    network = Trace(model, (3, 8, 8)).read(codes=True)
    for layer_name in compressor.resolve(model):
        layer = model.get_submodule(layer_name)
        quantizer = effective_weight(layer).fake_quantize
        found = network.quantizers[f"{layer_name}.parametrizations.weight.0.fake_quantize"]
        assert (found.bits, found.stored_bits) == (quantizer.code_bits, quantizer.qparams_bits(layer.weight.shape))
    # Learned steps are stored as scales, not once more as parameters.
    charged = {network.stored[index].name for index in network.used}
    assert not [name for name in charged if name.endswith(("step", "beta"))]
    report = score_with(Trace(model, (3, 8, 8)), Official(accumulator="integer", task="cifar100"), (3, 8, 8))
    assert report.metrics()["micronet_score"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_scale_and_zero_point_give_the_integers(name):
    model, compressor = quantized(name, activation=nn.SiLU)
    train(model)
    seen = inputs_of(model, torch.randn(16, 3, 8, 8))
    for layer_name in compressor.resolve(model):
        layer = model.get_submodule(layer_name)
        pairs = [(layer.weight, effective_weight(layer).fake_quantize, (original_weight(layer),))]
        if getattr(layer, "input_fake_quantize", None) is not None:
            pairs.append((seen[layer_name], layer.input_fake_quantize, ()))
        for values, quantizer, arguments in pairs:
            scale, zero_point = quantizer.qparams(*arguments)
            integers = values * scale
            assert (integers - integers.round()).abs().max() < 1e-3
            assert (integers.round() >= zero_point).all()
            top = 1 if name == "binary" and arguments else quantizer.levels - 1 + zero_point
            assert (integers.round() <= top).all()


def test_binary_weights_count_as_such():
    model, _ = quantized("binary")
    assert Trace(model, (3, 8, 8)).read().stored
    assert {int(effective_weight(m).fake_quantize.code_bits) for m in list(model)[2::2] if hasattr(m, "weight")} == {1}


def test_binary_weights_and_masks_exclude_each_other():
    with pytest.raises(ValueError, match=r"quantize\.weight: 2: .*level for 0"):
        quantized("binary", masked=True)
    model, _ = quantized("binary")
    with pytest.raises(ValueError, match="level for 0"):
        attach_mask(model[2])


def test_learned_steps_start_from_the_weights_and_from_the_first_batch():
    model, _ = quantized("lsq")
    weight = original_weight(model[2])
    start = 2 * weight.abs().mean((1, 2, 3)) / 7**0.5
    assert torch.allclose(effective_weight(model[2]).fake_quantize.step, start)
    quantizer = ActivationLSQ()(4).train()
    quantizer(torch.tensor([[0.0, 1.0, 3.0]]))
    assert quantizer.step.item() == pytest.approx(2 * 2 / 15**0.5)
    assert quantizer.zero_point() == 0
    quantizer(torch.tensor([[50.0]]))
    assert quantizer.step.item() == pytest.approx(2 * 2 / 15**0.5)
    signed = ActivationLSQ()(4).train()
    signed(torch.tensor([[-1.0, 3.0]]))
    assert signed.step.item() == pytest.approx(2 * 2 / 7**0.5)
    assert signed.zero_point() == -8


def test_ranges_freeze_when_told():
    model, _ = quantized("w4a4")
    compressor = Quantizer(ALL, freeze_at=0.5)
    compressor.attach(model)
    quantizer = model[2].input_fake_quantize
    compressor.update(4, 10)
    model.train()(torch.randn(4, 3, 8, 8))
    high = quantizer.high.clone()
    assert high > 0
    compressor.update(5, 10)
    model(9 * torch.randn(4, 3, 8, 8))
    assert quantizer.high == high


def test_a_rule_has_schemes_of_its_own():
    model, _ = quantized("w4a4")
    rules = ALL | {"last": BitsRule("7", weight=WeightLSQ("per_tensor"), activation=TrackedRange(estimate=percentile))}
    Quantizer(rules, weight=DoReFa, activation=ActivationLSQ).attach(model)
    assert type(effective_weight(model[2]).fake_quantize).__name__ == "DoReFaWeight"
    assert isinstance(model[2].input_fake_quantize, LearnedStepActivation)
    assert effective_weight(model[7]).fake_quantize.step.dim() == 0
    assert model[7].input_fake_quantize.estimate is percentile


class Refused(NamedTuple):
    """Settings that do not go together, and what is said of them."""

    changes: dict
    said: str


REFUSED = {
    "binary in 4 bits": Refused({"weight": Binary(), "weight_bits": 4}, "rules.all.weight_bits=4: binary"),
    "ternary in 2 bits": Refused({"weight": Ternary(), "weight_bits": 2}, "rules.all.weight_bits=2: ternary"),
    "lsq in 1 bit": Refused({"weight": WeightLSQ(), "weight_bits": 1}, "rules.all.weight_bits=1: LSQ needs at least 3"),
    "symmetric in 1 bit": Refused({"weight": RangeLinear(symmetric=True), "weight_bits": 1}, "symmetric"),
    "pact in 1 bit": Refused({"activation": PACT(), "activation_bits": 1}, "rules.all.activation_bits=1: PACT"),
    "frozen beyond the end": Refused({"freeze_at": 2}, "freeze_at=2"),
    "frozen from the start": Refused({"freeze_at": 0}, "freeze_at=0"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_impossible_combinations_are_refused(case):
    with pytest.raises(ValueError, match=case.said):
        Quantizer(ALL, **case.changes)


def test_schemes_are_bound_from_the_config():
    node = config("w4a4") | {"weight": "micronet_cli.compression.quantization.weight_quantizers.WeightLSQ"}
    assert build(node, "quantize").target("conf", BitsRule(".*")).weight == WeightLSQ()
    node["weight"] = {"_target_": node["weight"], "granularity": "per_row"}
    with pytest.raises(UserError, match=r"quantize\.weight\.granularity='per_row'"):
        build(node, "quantize")


@pytest.mark.parametrize("name", ["w4a4", "lsq", "lsq_plus"])
def test_bfloat16_activations_keep_their_type(name):
    model, _ = quantized(name)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(torch.randn(4, 3, 8, 8)).float().square().mean().backward()
    x = torch.randn(3, 5, dtype=torch.bfloat16)
    assert model[2].input_fake_quantize(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["w4a4", "lsq", pytest.param("lsq_plus", marks=pytest.mark.slow)])
def test_a_training_step_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    model, _ = quantized(name, activation=nn.SiLU)
    traced = copy.deepcopy(model)
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    for step in range(2):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model.train()(images).square().mean().backward()
        traced.train()
        compiled(images).square().mean().backward()
    for plain, other in zip(model.parameters(), traced.parameters(), strict=True):
        assert torch.allclose(plain.grad, other.grad, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
def test_accumulators_cannot_overflow(bits, activation):
    model, _ = quantized("w4a4", activation=activation)
    rules = {"all": BitsRule("(?!0$).*")}
    Quantizer(rules, accumulator_bits=bits).attach(model)
    train(model, steps=5, lr=0.1)
    for name, layer in compressible_layers(model).items():
        if name == "0":
            continue
        scale, _ = effective_weight(layer).fake_quantize.qparams(original_weight(layer))
        integers = (layer.weight * scale).round().flatten(1)
        _, first = layer.input_fake_quantize.qparams()
        worst = torch.stack([integers.clamp(min=0) * (first + 15) + integers.clamp(max=0) * first,
                             integers.clamp(min=0) * first + integers.clamp(max=0) * (first + 15)])  # fmt: skip
        assert worst.sum(-1).abs().max() <= 2 ** (bits - 1) - 1
        assert integers.abs().sum() > 0


def test_impossible_accumulators_are_refused():
    with pytest.raises(ValueError, match="one product does not fit accumulator_bits=4"):
        Quantizer(ALL, accumulator_bits=4)
    with pytest.raises(ValueError, match="accumulator_bits=64"):
        Quantizer(ALL, accumulator_bits=64)
