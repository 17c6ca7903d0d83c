"""What the trace sees: every executed operation, the bits that tensors carry, and a model left as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from micronet_cli.compression.quantization.weight_quantizers import WeightLSQ
from micronet_cli.layers.effective_weight import attach_effective_weight, attach_mask
from micronet_cli.layers.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    attach_input_fake_quantize,
)
from micronet_cli.scoring import rule_set, score, score_with
from micronet_cli.trace.trace import Trace


class Function(nn.Module):
    """A module from a function."""

    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        return self.function(self, x)


def counts(module, shape=(2, 4, 4)):
    figures = score(module, shape)
    return figures["multiplications"], figures["additions"]


def test_functional_operations_and_residual_sums_are_seen():
    assert counts(Function(lambda self, x: x * torch.sigmoid(x))) == (32 * 3, 32)
    assert counts(Function(lambda self, x: F.relu(x) + x)) == (32, 32)
    assert counts(Function(lambda self, x: F.relu6(x + 3) / 6)) == (32 * 3, 32)


def test_attention_products_are_counted_as_products():
    def attend(self, x):
        x = x.flatten(2)  # [1, 2, 16]
        return F.scaled_dot_product_attention(x, x, x, scale=1.0)

    network = Trace(Function(attend), (2, 4, 4)).read()
    products = [op.dot.multiplications for op in network.ops if op.dot]
    assert products == [2 * 2 * 16, 2 * 16 * 2]


def test_arithmetic_on_parameters_alone_is_free_and_its_result_is_stored():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight / weight.std())

    module = Standardised(2, 4, 3, bias=False)
    assert counts(module) == (4 * 4 * 18, 4 * 4 * 17)
    assert score(module, (2, 4, 4))["storage_params"] == 4 * 18
    trace = Trace(module, (2, 4, 4))
    with torch.no_grad():
        module.weight[0] = 1.0  # centred: zero
    assert trace.read().ops[0].dot.nonzeros.tolist() == [0, 18, 18, 18]


def test_a_table_is_stored_once_however_it_is_gathered():
    table, index = nn.Parameter(torch.randn(5, 2)), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    module = Function(lambda self, x: x + self.table[index].reshape(1, 1, 4, 4) + self.table[:1, :1])
    module.table = table
    assert score(module, (1, 4, 4))["storage_params"] == 10


def test_a_shared_layer_is_stored_once_and_executed_twice():
    layer = nn.Linear(4, 4, bias=False)
    figures = score(nn.Sequential(layer, layer), (1, 1, 4))
    assert (figures["storage_params"], figures["multiplications"]) == (16, 32)


def quantized(layer, bits):
    attach_input_fake_quantize(layer, ActivationFakeQuantize(bits))
    attach_effective_weight(layer).fake_quantize = WeightFakeQuantize(2)
    return layer


def operand_bits(module, shape=(2, 4, 4)):
    network = Trace(module, shape).read()
    return [[network.value_bits[i] for i in op.inputs] for op in network.ops if op.dot]


class Gate(nn.Module):
    """Quantises its input by a quantiser of its own, then lets a function see it."""

    def __init__(self, function, bits=4):
        super().__init__()
        self.quantizer, self.other = ActivationFakeQuantize(bits), ActivationFakeQuantize(6)
        self.function, self.conv = function, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(self.function(self, self.quantizer(x)))


KEEPING = {
    "relu": lambda self, q: F.relu(q),
    "reshape": lambda self, q: q.flatten().reshape(1, 2, 4, 4),
    "transpose": lambda self, q: q.transpose(2, 3).contiguous(),
    "max_pool": lambda self, q: F.max_pool2d(q, 2),
    "dropout": lambda self, q: F.dropout(q, training=self.training),
    "pad": lambda self, q: F.pad(q, (1, 1)),
}
CHANGING = {
    "sum": lambda self, q: q + q,
    "scale": lambda self, q: q * 0.5,
    "average": lambda self, q: F.avg_pool2d(q, 2),
    "swish": lambda self, q: F.silu(q),
    "pad with a value": lambda self, q: F.pad(q, (1, 1), value=0.3),
}


@pytest.mark.parametrize("name", [*KEEPING, *CHANGING])
def test_bits_are_carried_until_an_operation_changes_values(name):
    wanted = 4 if name in KEEPING else 32
    assert operand_bits(Gate({**KEEPING, **CHANGING}[name])) == [[wanted]]


def test_concatenation_has_the_maximum_of_its_bits():
    def both(self, q):
        return torch.cat([q[:, :1], self.other(q)[:, :1]], 1)

    assert operand_bits(Gate(both)) == [[6]]
    assert operand_bits(Gate(lambda self, q: torch.cat([q[:, :1], q[:, :1].exp()], 1))) == [[32]]


def test_quantisers_of_a_layer_are_not_counted_but_stored():
    layer = quantized(nn.Conv2d(2, 4, 1, bias=False), 8)
    with torch.no_grad():
        layer.parametrizations.weight.original.uniform_(0.5, 1)  # nothing rounds to zero
    assert counts(layer) == (4 * 2 * 16, 4 * 16)
    # 2-bit weights, a 32-bit scale and a 2-bit zero point a channel, 2 x 32 bits for the input.
    assert score(layer, (2, 4, 4))["storage_params"] * 32 == 8 * 2 + 4 * 34 + 64


def test_recurrent_layers_are_counted_step_by_step():
    module = Function(lambda self, x: self.rnn(x.flatten(1, 2))[0], rnn=nn.RNN(4, 3, batch_first=True, bias=False))
    weights = module.rnn._flat_weights
    figures = score(module, (2, 4, 4))  # 8 steps of 4 inputs and 3 states, a tanh each; the first state is zero
    assert figures["multiplications"] == 8 * (3 * 4 + 3) + 7 * 3 * 3
    assert figures["storage_params"] == 12 + 9 + 3  # and what the first state gives
    assert module.rnn._flat_weights is weights
    with torch.no_grad():
        module.rnn.weight_ih_l0[0] = 0
    assert score(module, (2, 4, 4))["multiplications"] == 8 * (2 * 4 + 3) + 7 * 3 * 3


def test_a_gathered_weight_is_stored_as_it_was():
    module = Function(lambda self, x: x.flatten(2) @ self.table[torch.arange(32) % 16 // 8].repeat(1, 2)[:16])
    module.table = nn.Parameter(torch.ones(2, 3))
    figures = score(module, (2, 4, 4))
    assert figures["storage_params"] == 6
    assert figures["weight_sparsity"] == 0


def test_a_constant_of_the_program_is_a_float_and_not_stored():
    def filtered(self, x):
        return F.conv2d(self.quantizer(x), torch.ones(1, 2, 2, 2))

    figures = score(Function(filtered, quantizer=ActivationFakeQuantize(4)), (2, 3, 3))
    assert figures["storage_params"] == 2  # scale and zero point
    assert figures["math_ops"] == 4 * 8 + 4 * 7


def test_half_precision_counts_at_its_own_bits():
    figures = score(nn.Linear(4, 2, bias=False).half(), (1, 1, 4))
    assert figures["storage_params"] == 4
    assert figures["weight_bits_mean"] == figures["activation_bits_mean"] == 16


def test_other_parametrisations_are_read_through():
    layer = parametrizations.weight_norm(nn.Linear(8, 4, bias=False))
    trace = Trace(layer, (1, 1, 8))
    assert score_with(trace, rule_set("official")).total.storage_params == 32
    with torch.no_grad():
        layer.parametrizations.weight.original1[:, :4] = 0
    assert trace.read().ops[-1].dot.nonzeros.tolist() == [4] * 4


def snapshot(model):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors, [m.training for m in model.modules()], hooks, [*model.state_dict()]


def test_scoring_leaves_the_model_its_mode_and_the_random_state_alone():
    model = nn.Sequential(quantized(nn.Conv2d(2, 4, 3), 4), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 1))
    attach_mask(model[3])
    model.train()
    model[2].eval()
    tensors, *rest = snapshot(model)
    state = torch.get_rng_state()
    global_hooks = dict(torch.nn.modules.module._global_forward_hooks)
    score(model, (2, 8, 8), accumulator="integer")
    assert torch.equal(torch.get_rng_state(), state)
    after, *now = snapshot(model)
    assert now == rest
    assert all(torch.equal(tensors[name], after[name]) for name in tensors)
    assert dict(torch.nn.modules.module._global_forward_hooks) == global_hooks


def test_a_trace_reads_new_bits_and_zeros_and_follows_new_structure():
    model = nn.Sequential(quantized(nn.Conv2d(2, 4, 1, bias=False), 8))
    trace, rules = Trace(model, (2, 4, 4)), rule_set("official")

    def fresh():
        return score_with(copy.deepcopy(model), rules, (2, 4, 4)).metrics()

    model[0].input_fake_quantize.bits = 3
    assert score_with(trace, rules).metrics() == fresh()
    attach_effective_weight(model[0]).fake_quantize.bits = 6
    assert score_with(trace, rules).metrics() == fresh()
    attach_mask(model[0]).mask[0] = False
    assert score_with(trace, rules).metrics() == fresh()
    attach_effective_weight(model[0]).mask[1, 0] = False
    assert score_with(trace, rules).metrics() == fresh()
    attach_input_fake_quantize(model[0], None)
    assert score_with(trace, rules).metrics() == fresh()
    assert fresh()["activation_bits_mean"] == 32


def test_a_trace_notices_a_learned_step_that_moved():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, bias=False)
    attach_mask(layer)
    attach_effective_weight(layer).fake_quantize = quantizer = WeightLSQ()(4, layer.weight.detach())
    trace, rules = Trace(nn.Sequential(layer), (8, 4, 4)), rule_set("official")
    before = score_with(trace, rules).metrics()
    with torch.no_grad():
        for step in quantizer.parameters():
            step.mul_(8)  # most weights round to zero now
    after = score_with(trace, rules).metrics()
    assert after["weight_sparsity"] > before["weight_sparsity"] + 0.3
    assert after == score_with(nn.Sequential(layer), rules, (8, 4, 4)).metrics()


class Gathered(nn.Module):
    """A product with rows of a parameter that an index picks, made where the example is, as MViTv2 does."""

    def __init__(self, bring):
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 4))
        self.bring = bring

    def forward(self, x):
        index = self.bring(x.device)
        distance = (index[:, None] - index).abs()  # [3, 3]
        rows = self.table[distance]  # [3, 3, 4]
        return torch.einsum("bhc,hkc->bhk", x[0], rows)


TABLES = {
    "made there": lambda device: torch.arange(3, device=device),
    "brought there": lambda device: torch.tensor([0, 1, 2]).to(device),
    "a line of numbers": lambda device: torch.linspace(0, 2, 3, device=device).long(),
}


@pytest.mark.parametrize("bring", TABLES.values(), ids=TABLES)
def test_a_gathered_weight_has_the_zeros_that_were_gathered(bring):
    model = Gathered(bring)
    with torch.no_grad():
        model.table[2] = 0
    (product,) = [op for op in Trace(model, (1, 3, 4)).read().ops if op.dot]
    # Row 2 is read at the distance of the outermost two: twice of nine rows.
    assert product.dot.nonzeros.sum() == (9 - 2) * 4


def test_a_weight_gathered_by_an_unknown_index_is_dense():
    model = Gathered(lambda device: torch.ones(3, device=device).cumsum(0).long() - 1)
    with torch.no_grad():
        model.table[2] = 0
    (product,) = [op for op in Trace(model, (1, 3, 4)).read().ops if op.dot]
    assert product.dot.nonzeros.sum() == 9 * 4
