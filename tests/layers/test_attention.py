"""Attention taken apart computes what it computed."""

import timm
import torch

from micronet_cli.layers.attention import unfuse_attention


def test_unfused_attention_is_the_same_function():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5).eval().double()
    images = torch.randn(2, 3, 160, 160, dtype=torch.float64)
    assert model.blocks[0].attn.fused_attn
    expected = model(images)
    unfuse_attention(model)
    assert not model.blocks[0].attn.fused_attn
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)
