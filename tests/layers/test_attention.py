"""Attention taken apart computes what it computed."""

import pytest
import timm
import torch
import torch.nn.functional as F

from micronet_cli.layers.attention import unfuse_attention, unfused_attention


def test_unfused_attention_is_the_same_function():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5).eval().double()
    images = torch.randn(2, 3, 160, 160, dtype=torch.float64)
    assert model.blocks[0].attn.fused_attn
    expected = model(images)
    unfuse_attention(model)
    assert not model.blocks[0].attn.fused_attn
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)


MASK = torch.tensor([[True, False, True], [True, True, False]])
OPTIONS = {
    "plain": {},
    "scale": {"scale": 1.0},
    "causal": {"is_causal": True},
    "bool mask": {"attn_mask": MASK},
    "added mask": {"attn_mask": torch.tensor([[0.0, -1.0, 2.0], [0.0, 0.5, 0.0]])},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_two_products_and_a_softmax_are_what_torchs_kernel_computes(options):
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 2, 5), torch.randn(1, 4, 3, 5), torch.randn(1, 4, 3, 6)
    expected = F.scaled_dot_product_attention(query, key, value, **OPTIONS[options])
    torch.testing.assert_close(unfused_attention(query, key, value, **OPTIONS[options]), expected)


def test_several_heads_of_queries_share_keys_and_values():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 2, 5), torch.randn(1, 2, 3, 5), torch.randn(1, 2, 3, 5)
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(unfused_attention(query, key, value, enable_gqa=True), expected)


def test_dropped_probabilities_are_made_up_for():
    torch.manual_seed(0)
    query, key = torch.zeros(1, 8, 1000), torch.zeros(1, 1000, 1000)  # all probabilities are 1 / 1000
    dropped = unfused_attention(query, key, torch.eye(1000)[None], dropout_p=0.5)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 0.002]))
