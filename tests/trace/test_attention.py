"""Attention with a query that parameters alone make is traced as attention of the example is."""

import torch
import torch.nn.functional as F
from torch import nn

from micronet_cli.trace.observe import observe
from micronet_cli.trace.trace import Trace


class Pool(nn.Module):
    """Attention pooling: a learned query, keys and values of the example."""

    def __init__(self, by_name):
        super().__init__()
        self.latent = nn.Parameter(torch.ones(1, 1, 1, 4))
        self.query = nn.Linear(4, 4)
        self.pair = nn.Linear(4, 8)
        self.by_name = by_name

    def forward(self, x):
        query = self.query(self.latent)
        key, value = self.pair(x).chunk(2, -1)
        if self.by_name:
            return F.scaled_dot_product_attention(query, key=key, value=value)
        return F.scaled_dot_product_attention(query, key, value)


def test_a_learned_query_costs_what_it_costs_without_values():
    real = Trace(Pool(by_name=False), (1, 5, 4)).read()
    with torch.device("meta"):
        model = Pool(by_name=True)
    meta = Trace(model, (1, 5, 4)).read()
    assert [op.kind for op in real.ops] == [op.kind for op in meta.ops]
    counts = [op.dot.multiplications for op in real.ops if op.dot]
    assert counts == [op.dot.multiplications for op in meta.ops if op.dot]
    assert counts == [5 * 4 * 8, 5 * 4, 5 * 4]


def test_such_a_network_can_be_observed():
    assert [call.module for call in observe(Pool(by_name=True), (1, 5, 4)).calls] == ["query", "pair", ""]
