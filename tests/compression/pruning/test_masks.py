"""Masks of a network's history: the ruled layers have one, and nothing moves it."""

import pytest
import torch
from torch import nn

from micronet_cli.compression.pruning.masks import Masks
from micronet_cli.layers.effective_weight import effective_weight

RULES = {"all": {"match": ".*", "sparsity": 0.5}, "last": {"match": "{classifier}", "sparsity": None}}


def test_ruled_layers_get_a_mask_that_stays():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    masks = Masks(RULES)
    masks.attach(model)
    effective_weight(model[0]).mask[0] = False
    masks.attach(model)
    assert masks.update(1, 1)
    assert (~effective_weight(model[0]).mask).sum() == 4
    assert torch.equal(model[0].weight[0], torch.zeros(4))
    assert effective_weight(model[1]) is None
    assert masks.table(model)["0"] == {"prune_rule": "all", "target_sparsity": 0.5}


def test_a_rule_without_a_layer_is_named():
    with pytest.raises(ValueError, match=r"prune\.rules\.conv\.match='convs': matches no layer"):
        Masks({"conv": {"match": "convs", "sparsity": 0.5}}).attach(nn.Sequential(nn.Linear(4, 6)))
