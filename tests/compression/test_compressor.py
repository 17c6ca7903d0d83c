"""Every compressor has the four members that training, stages and checkpoints rely on."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.masks import Masks
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.compression.pruning.second_order import SecondOrderPruner
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.functional.pruning import Taylor

RULES = {"all": SparsityRule(match=".*", sparsity=0.5)}
CASES = {
    "pruner": (Pruner(RULES), False, {"0", "1"}),
    "pruner by gradients": (Pruner(RULES, importance=Taylor()), True, {"0", "1"}),
    "second order": (SecondOrderPruner(RULES), False, {"0", "1"}),
    "masks": (Masks(RULES), False, {"0", "1"}),
    "quantizer": (Quantizer({"all": BitsRule(match=".*")}), False, {"0", "1"}),
    "removal": (Removal(outputs={"0": [1]}, inputs={"1": [1]}), False, {"0"}),
    "fixed grids": (FixedGrids(), False, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_compressor_has_all_four_members(case):
    compressor, reads_gradients, layers = CASES[case]
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    compressor.attach(model)
    assert compressor.update(1, 1) is True
    assert compressor.reads_gradients is reads_gradients
    assert set(compressor.table(model)) == layers
    assert model(torch.zeros(2, 4)).shape == (2, 3)
