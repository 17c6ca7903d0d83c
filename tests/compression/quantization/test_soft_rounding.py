"""Stand-ins of quantisers: soft weights and hard ones on the grid, learned widths, values that go on in float."""

import pytest
import torch

from micronet_cli.compression.quantization.fixed_grid import FixedGrid
from micronet_cli.compression.quantization.soft_rounding import LearnedWidth, SoftRounding, mixed
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize


def rounding(mask=None, weight=None):
    """A channel of 2 bits whose levels are -1, 0, 1, 2."""
    in_float = torch.tensor([[-1.0, 0.25, 0.75, 2.0]])
    grid = FixedGrid(WeightFakeQuantize(2), in_float)
    weight = in_float if weight is None else weight
    return SoftRounding(grid, weight, in_float, mask), weight


def test_it_begins_at_its_level_or_nearly():
    soft, weight = rounding()
    torch.testing.assert_close(soft(weight), torch.tensor([[-1, 0.1, 0.9, 2]]))
    assert soft.rounded().tolist() == [[-1, 0, 1, 2]]


def test_a_level_that_was_chosen_is_where_it_begins():
    soft, weight = rounding(weight=torch.tensor([[0.0, 1.0, -1.0, 2.0]]))
    torch.testing.assert_close(soft(weight), torch.tensor([[-0.4, 0.7, -0.6, 2.0]]))
    assert torch.equal(soft.rounded(), weight)


def test_variables_decide_and_the_grid_bounds_them():
    soft, weight = rounding()
    soft.variables.data = torch.tensor([[9.0, 9.0, -9.0, 9.0]])
    assert soft(weight).tolist() == [[0, 1, 0, 2]]
    assert torch.equal(soft.rounded(), soft(weight))


def test_a_pruned_weight_stays_zero():
    soft, weight = rounding(torch.tensor([[True, False, True, True]]))
    soft.variables.data.fill_(9.0)
    assert soft(weight)[0, 1] == 0
    assert soft.rounded()[0, 1] == 0


def quantizer(low=0.0, high=3.0, **options):
    made = ActivationFakeQuantize(2, **options)
    made.low.fill_(low)
    made.high.fill_(high)
    made.seen.fill_(1)
    return made.eval()


VALUES = torch.tensor([-2.0, 0.4, 1.2, 2.6, 7.0])


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_width_of_one_changes_nothing_and_a_learned_one_goes_into_the_range(low, symmetric):
    tracked = quantizer(low, symmetric=symmetric)
    width = LearnedWidth(tracked, 0.0, torch.Generator())
    torch.testing.assert_close(width(VALUES), tracked(VALUES))
    width.width.data.fill_(0.5)
    learned = width(VALUES)
    width.widen(tracked)
    torch.testing.assert_close(tracked(VALUES), learned)
    assert float(tracked.high) == 1.5


def test_the_gradient_of_the_width_is_that_of_the_step():
    width = LearnedWidth(quantizer(), 0.0, torch.Generator())
    width(VALUES).sum().backward()
    # Step 1: below the range 0, inside it rounded minus exact, above it the largest code.
    assert float(width.width.grad) == pytest.approx(0 + (0 - 0.4) + (1 - 1.2) + (3 - 2.6) + 3)


def test_a_width_never_closes():
    width = LearnedWidth(quantizer(), 0.0, torch.Generator())
    width.width.data.fill_(-1.0)
    assert width.factor().item() == pytest.approx(0.01)


def test_dropped_values_go_on_in_float():
    quantized, in_float = torch.zeros(100, 100), torch.ones(100, 100)
    generator = torch.Generator().manual_seed(0)
    assert mixed(quantized, in_float, 0.0, generator) is quantized
    assert torch.equal(mixed(quantized, in_float, 1.0, generator), in_float)
    half = mixed(quantized, in_float, 0.5, generator)
    assert set(half.unique().tolist()) == {0, 1}
    assert float(half.mean()) == pytest.approx(0.5, abs=0.03)
