"""Pruning without training: outputs, means, layers that are left alone, impossible networks."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from micronet_cli.compression.pruning.masks import Masks
from micronet_cli.compression.pruning.one_shot import OneShot
from micronet_cli.compression.pruning.second_order import SecondOrderPruner
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule
from micronet_cli.functional.granularity import NM
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.finite import NotFinite
from micronet_cli.trace.chains import chains

RULES = {"all": SparsityRule("(?!{stem}$).*", 0.5)}
PRUNED = ("3", "6", "9")


def images(seed=0):
    return torch.randn(64, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        Conv2dSame(8, 8, 3, stride=2, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip
    model(images(9))  # BatchNorm has seen something
    return model.eval()


def pruned(model, rules=RULES, seed=0, **options):
    reference = copied(model)
    found = chains(model, (3, 9, 9))
    Masks(rules).attach(model)
    pruner = SecondOrderPruner(rules, **options)
    work = OneShot(reference, model, found, pruner, rows=4096, memory_mb=64, seed=seed)
    return list(work.run(images().split(16))), reference


def by_magnitude(model):
    for name in PRUNED:
        weight = model.get_submodule(name).weight.data
        weight *= shrink_mask(weight.abs(), torch.ones_like(weight, dtype=torch.bool), 0.5)
    return model


@torch.no_grad()
def distance(model, reference):
    seen = images(5)
    wanted = reference(seen)
    return float((model(seen) - wanted).square().sum() / wanted.square().sum())


def test_half_of_each_layer_goes_and_the_output_stays():
    model = network()
    lines, reference = pruned(model)
    assert [line["layer"] for line in lines] == list(PRUNED)
    for line in lines:
        layer = model.get_submodule(line["layer"])
        assert line["sparsity"] == 0.5
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
        assert torch.equal(layer.weight == 0, ~effective_weight(layer).mask)
        assert line["error"] < line["error_before"]
    # On new images: the classifier has 256 inputs and has seen 64 rows.
    assert distance(model, reference) < 0.5 * distance(by_magnitude(network()), reference)


def test_means_are_those_of_the_dense_network():
    model = network()
    _, reference = pruned(model)
    with torch.no_grad():
        for end in (5, 7, 10):  # behind the BatchNorm, a bias, the classifier's bias
            wanted = reference[:end](images()).transpose(0, 1).flatten(1).mean(1)
            found = model[:end](images()).transpose(0, 1).flatten(1).mean(1)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_layer_that_is_left_alone_is_corrected():
    rules = RULES | {"pointwise": SparsityRule("6", None)}
    model = network()
    weight = model[6].weight.detach().clone()
    bias = model[6].bias.detach().clone()
    lines, _ = pruned(model, rules)
    assert torch.equal(model[6].weight, weight)
    assert not torch.equal(model[6].bias, bias)
    assert lines[1] == {"layer": "6"}


def test_what_is_before_the_first_pruned_layer_is_not_visited():
    rules = {"last": SparsityRule("{classifier}", 0.5)}
    lines, _ = pruned(network(), rules)
    assert [line["layer"] for line in lines] == ["9"]


def test_the_same_seed_gives_the_same_weights():
    first, second = network(), network()
    for model in (first, second):
        pruned(model, seed=3)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.layer(self.layer(x))


def test_a_layer_that_runs_twice_is_refused_by_name():
    with pytest.raises(ValueError, match=r"layer is not executed exactly once; .* sparsity=null leaves it alone"):
        pruned(Twice().eval())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_values_that_are_not_finite_end_it(scope):
    model = network()
    model[3].weight.data[0] = torch.nan
    with pytest.raises(NotFinite, match="3: its output is not finite"):
        pruned(model, scope=scope)


def test_one_total_is_shared_out_by_what_the_logits_make_of_it():
    errors = {}
    for scope in ("layer", "global"):
        model = network()
        with torch.no_grad():
            model[6].weight[:, :4] *= 0.01  # half of what the depthwise layer gives hardly matters
        lines, reference = pruned(model, scope=scope)
        errors[scope] = distance(model, reference)
        sizes = {name: model.get_submodule(name).weight.numel() for name in PRUNED}
        dropped = sum(line["sparsity"] * sizes[line["layer"]] for line in lines)
        assert dropped == sum(sizes.values()) // 2
    assert len({line["sparsity"] for line in lines}) == len(PRUNED)
    assert errors["global"] < 0.8 * errors["layer"]


def test_two_of_four_leaves_nothing_to_share_out():
    rules = {"last": SparsityRule("{classifier}", 0.5)}
    lines, _ = pruned(network(), rules, scope="global", granularity=NM(2, 4))
    assert lines == pruned(network(), rules, granularity=NM(2, 4))[0]
