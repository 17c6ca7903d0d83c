"""The packed network beside the one it came from: codes, predictions, score, size, accumulators."""

import numpy as np
import pytest
import torch
from torch import nn

from micronet_cli.artifact.compare import compare
from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.pack import pack
from micronet_cli.artifact.runtime import Tables, load
from micronet_cli.functional.counting import signed_width
from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.integer import certified_widths, integer_input
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.scoring import rule_set, score_with
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.trace import Trace
from tests.artifact.networks import SCHEMES, W4A4, network, packed, transformer


def assert_same(model, loaded, side, images=4, most_differing=1e-3, most_differing_alone=1e-4):
    pictures = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))
    exact = compare(model, loaded, pictures, torch.float64)
    assert exact.differing_codes == 0
    assert exact.same_predictions == images
    assert exact.logit_error < 1e-6
    single = compare(model, loaded, pictures, torch.float32)
    assert single.unexplained == 0
    assert single.differing_codes <= most_differing * single.codes
    alone = compare(model, loaded, pictures, torch.float32, alone=True)
    assert alone.differing_codes <= most_differing_alone * alone.codes
    assert alone.logit_error < 1e-4
    layers = compressible_layers(model)
    for name, layer in layers.items():
        assert torch.equal(layer.weight == 0, loaded.get_submodule(name).weight == 0), name
    traces = [Trace(network_, (3, side, side)) for network_ in (model, loaded)]
    for accumulator in ("integer", "fp32"):
        rules = rule_set("official", accumulator=accumulator)
        before, after = (score_with(trace, rules).metrics() for trace in traces)
        if not all(runs_linear(layer) for layer in layers.values()):
            # Standardised weights are computed floats: which of them happen to be zero turns on their last bit.
            del before["weight_sparsity"], after["weight_sparsity"]
        assert before == after
    return before["storage_bytes"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_network_is_the_same_and_no_larger_than_claimed(tmp_path, scheme):
    model = network(**SCHEMES[scheme])
    loaded = packed(tmp_path / "n.mnet", model)
    claimed = assert_same(model, loaded, 16)
    assert (tmp_path / "n.mnet").stat().st_size <= 1.02 * claimed + 8192
    again = packed(tmp_path / "e.mnet", model, entropy=True).state_dict()
    state = loaded.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        pytest.param("test_vit", 160, id="vit"),
        pytest.param("test_convnext", 32, id="convnext"),
        pytest.param("test_efficientnet", 32, id="efficientnet"),
        pytest.param("test_resnet", 32, id="resnet"),
    ],
)
def test_other_architectures(tmp_path, name, side):
    model = network(name, side, **W4A4)
    assert_same(model, packed(tmp_path / "n.mnet", model, name, side), side, images=1)


@pytest.mark.parametrize("scheme", ["w4a4", "w8a8", "symmetric", "lsq", "lsq+"])
def test_operands_of_attention(tmp_path, scheme):
    model, header = transformer(**SCHEMES[scheme])
    path = tmp_path / "n.mnet"
    path.write_bytes(pack(model, header))
    loaded, _ = load(path, "path")
    # In single precision a code at a boundary takes those behind it along, for attention mixes all positions; and sums
    # of few codes with nearly equal probabilities lie on boundaries more often than others.
    claimed = assert_same(model, loaded, 32, most_differing=0.01, most_differing_alone=3e-4)
    assert path.stat().st_size <= 1.02 * claimed + 8192
    operands = [name for name, _ in loaded.named_modules() if ".operand_fake_quantize." in name]
    assert len(operands) == 2 * 4


FULL_SIZE = {
    "vit_tiny_patch16_224": 224,
    "resnet18": 64,
    "tf_efficientnet_b0": 64,
    "mobilenetv2_100": 64,
    "rexnet_100": 64,
    "convnext_atto": 64,
    "densenet121": 64,
    "resnetv2_50x1_bit": 64,
    "swin_tiny_patch4_window7_224": 224,
    "beit_base_patch16_224": 224,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_architectures(tmp_path, name):
    side = FULL_SIZE[name]
    model = network(name, side, **W4A4)
    loaded = packed(tmp_path / "n.mnet", model, name, side)
    # In single precision a code at a boundary may fall to its other side, and takes those behind it along: in these
    # random networks without end, so that each quantiser is judged alone.
    chaotic = name in ("resnetv2_50x1_bit", "swin_tiny_patch4_window7_224", "beit_base_patch16_224")
    claimed = assert_same(model, loaded, side, images=1, most_differing=1.0 if chaotic else 1e-3)
    assert (tmp_path / "n.mnet").stat().st_size <= 1.02 * claimed + 8192


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "cait_xxs24_224"])
def test_operands_of_full_size_attention(tmp_path, name):
    # 8 bits: sums of 4-bit codes lie on boundaries too often. Each quantiser is judged alone, as above.
    model = network(name, 224, None, weight_bits=8, activation_bits=8, attention=True)
    assert_same(model, packed(tmp_path / "n.mnet", model, name, 224), 224, images=1, most_differing=1.0)


def test_channel_whose_batch_norm_has_gain_zero(tmp_path):
    model = network(**W4A4)
    with torch.no_grad():
        model.layer1[0].bn1.weight[:3] = 0
    loaded = packed(tmp_path / "n.mnet", model)
    assert_same(model, loaded, 16)
    assert not [m for m in loaded.modules() if isinstance(m, BatchNorm)]


def test_layers_compute_with_integers(tmp_path):
    loaded = packed(tmp_path / "n.mnet", network(**W4A4))
    seen = {}
    for name, layer in loaded.named_modules():
        if integer_input(layer) is not None:
            layer.rescale.register_forward_pre_hook(lambda m, args, name=name: seen.__setitem__(name, args[0]))
            assert (layer.weight == layer.weight.round()).all()
            assert layer.weight.abs().max() <= 15
    with torch.no_grad():
        loaded(torch.randn(2, 3, 16, 16))
    assert len(seen) == 7
    assert all(torch.equal(sums, sums.round()) for sums in seen.values())


def test_sums_beyond_float32_run_in_float64(tmp_path):
    model = network(weight_bits=16, activation_bits=16, sparsity=None)
    loaded = packed(tmp_path / "n.mnet", model)
    used = {integer_input(layer).dtype for layer in loaded.modules() if integer_input(layer) is not None}
    assert used == {torch.float64}
    with torch.no_grad():
        assert loaded(torch.randn(2, 3, 16, 16)).dtype == torch.float32
    # float32 itself has few bits beyond the 16 of a code
    assert_same(model, loaded, 16, most_differing=0.1, most_differing_alone=0.01)


def worst_inputs(row, low, high):
    """Inputs that make the sum of products with ``row`` smallest and largest."""
    return np.where(row > 0, low, high), np.where(row > 0, high, low)


def test_no_accumulator_exceeds_its_certified_width_and_one_bit_less_would_overflow(tmp_path):
    loaded = packed(tmp_path / "n.mnet", network(**W4A4))
    widths = certified_widths(loaded)
    assert len(widths) == 7
    rng = np.random.default_rng(0)
    for name, certified in widths.items():
        layer = loaded.get_submodule(name)
        rows = original_weight(layer).detach().flatten(1).numpy().astype(np.int64)
        low, high = integer_input(layer).codes
        for row, width in zip(rows, certified, strict=True):
            sums = [int(row @ x) for x in worst_inputs(row, min(low, 0), max(high, 0))]
            limits = -(2 ** (width - 1)), 2 ** (width - 1) - 1
            assert limits[0] <= sums[0] <= sums[1] <= limits[1]
            if width > 1:
                assert sums[0] < limits[0] // 2 or sums[1] > limits[1] // 2
            order = rng.permutation(len(row))  # partial sums in any order
            for inputs_ in (*worst_inputs(row, low, high), rng.integers(low, high + 1, len(row))):
                partial = np.cumsum(row[order] * inputs_[order])
                assert signed_width(min(partial.min(), 0), max(partial.max(), 0)) <= width


def test_worst_case_input_through_the_network_is_exact(tmp_path):
    """The layer itself, on the integers that make its sums largest."""
    loaded = packed(tmp_path / "n.mnet", network(**W4A4))
    layer = loaded.layer2[0].conv2
    low, high = integer_input(layer).codes
    weight = original_weight(layer).detach()
    integers = torch.where(weight[:1] > 0, high, low).float()
    sums = nn.functional.conv2d(integers, weight)[0, :, 0, 0]
    exact = (weight[:, :].long() * integers.long()).flatten(1).sum(1)
    assert torch.equal(sums.long(), exact)
    assert signed_width(0.0, float(exact[0])) == certified_widths(loaded)["layer2.0.conv2"][0]


TABLES = {"layers": [], "activations": [], "parameters": [], "removed": [], "batch_norms": []}
BAD_TABLES = {
    "no layers": {"layers": None},
    "no list of removed": {"removed": "n"},
    "a number among the removed": {"removed": [1]},
    "no list of BatchNorms": {"batch_norms": "n"},
    "a number among the BatchNorms": {"batch_norms": [1]},
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_are_no_lists_are_refused(case):
    ((key, value),) = BAD_TABLES[case].items()
    with pytest.raises(Damaged, match=f"header: {key}: must be a list"):
        Tables.of(TABLES | {key: value})


def test_more_entries_allow_for_more_tensors():
    assert Tables.of(TABLES).most_tensors() == 64
    assert Tables.of(TABLES | {"removed": ["a"], "batch_norms": ["b", "c"]}).most_tensors() == 84
