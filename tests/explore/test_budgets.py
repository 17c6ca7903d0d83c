"""Budgets: prices are the scorer's, the target is met, its margin is kept."""

import pytest

from micronet_cli.explore.budgets import Budget
from micronet_cli.explore.prices import AS_IT_IS, Option
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8

SHAPE = (3, 16, 16)


class Fixed:
    """Prices without a scorer: 10 for a layer as it is, 10 (1 - sparsity) else; 5 shared by all."""

    def of(self, layer, option, figure):
        return 10 * (1 - (option.sparsity or 0))

    def rest(self, layers, figure):
        return 5.0


class Whole(Fixed):
    """The same with what the two layers cost in the rest where they are left in it."""

    def rest(self, layers, figure):
        return 5.0 + 10 * (2 - len(layers))


def rows(**losses):
    return [
        {"layer": layer, "kind": "sparsity", "value": value, "divergence": loss}
        for layer, found in losses.items()
        for value, loss in zip((0.5, 0.8), found, strict=True)
    ]


def test_the_layer_that_loses_least_is_pruned():
    def total(options):
        return {"storage_bytes": 5 + sum(Fixed().of(layer, o, "") for layer, o in options.items())}

    table = rows(tough=(0.1, 0.2), tender=(1, 9))
    # 25 as they are. 20.1 needs one half pruned; 12.1 the tough one at 0.8 and the tender one at 0.5.
    half = Budget(storage_bytes=20.1).solve(table, Fixed(), total)
    assert half == {"tough": Option(0.5), "tender": AS_IT_IS}
    more = Budget(storage_bytes=12.1).solve(table, Fixed(), total)
    assert more == {"tough": Option(0.8), "tender": Option(0.5)}
    assert set(Budget(storage_bytes=100).solve(table, Fixed(), total).values()) == {AS_IT_IS}
    with pytest.raises(ValueError, match="storage_bytes=8: must be at least 9"):
        Budget(storage_bytes=8).solve(table, Fixed(), total)


def test_a_margin_is_left_free_and_the_least_is_told_with_it():
    def total(options):
        return {"storage_bytes": 5 + sum(Fixed().of(layer, o, "") for layer, o in options.items())}

    table = rows(tough=(0.1, 0.2), tender=(1, 9))
    assert Budget(storage_bytes=20.1).solve(table, Fixed(), total)["tough"] == Option(0.5)
    assert Budget(storage_bytes=20.1, margin=0.01).solve(table, Fixed(), total)["tough"] == Option(0.8)
    with pytest.raises(ValueError, match="storage_bytes=17: must be at least 18 with"):
        Budget(storage_bytes=17, margin=0.5).solve(table, Fixed(), total)
    with pytest.raises(ValueError, match="margin=1: must be a fraction of the target"):
        Budget(storage_bytes=17, margin=1)


def test_what_no_table_can_reach_is_known_without_one():
    layers = ["tough", "tender"]
    values = {"sparsity": [0.5, 0.8]}
    # 9 bytes with both at 0.8, 25 as they are; the made-up prices leave nothing out of the rest.
    Budget(storage_bytes=10).check_within_reach(layers, values, Whole())
    with pytest.raises(ValueError, match="storage_bytes=8: must be at least 9 with the table's options"):
        Budget(storage_bytes=8).check_within_reach(layers, values, Whole())
    with pytest.raises(ValueError, match="storage_bytes=25: the network has 25 as it is; give less"):
        Budget(storage_bytes=25).check_within_reach(layers, values, Whole())


def test_what_layers_share_is_found_by_the_scorer():
    def total(options):  # 3 less than the sum of prices where anything is pruned
        pruned = any(o != AS_IT_IS for o in options.values())
        return {"storage_bytes": 5 - 3 * pruned + sum(Fixed().of(layer, o, "") for layer, o in options.items())}

    # By prices alone 17.1 needs both at half (15); the scorer says that one at half costs 17.
    found = Budget(storage_bytes=17.1).solve(rows(tough=(0.1, 0.2), tender=(1, 9)), Fixed(), total)
    assert found["tender"] == AS_IT_IS
    assert found["tough"] in (Option(0.5), Option(0.8))
    assert total(found)["storage_bytes"] <= 17.1


def test_a_budget_has_one_target():
    assert Budget().target is None
    with pytest.raises(ValueError, match=r"storage_bytes=5: budget\.score is given too"):
        Budget(score=0.1, storage_bytes=5)
    with pytest.raises(ValueError, match="score=-1: must be a positive number"):
        Budget(score=-1)
