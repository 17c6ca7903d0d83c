"""Which layers are pruned, and how far."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from micronet_cli.layers.rules import LayerRule, match_layers


@dataclass(frozen=True)
class SparsityRule(LayerRule):
    """Final sparsity of the matched layers: a fraction of zeros in [0, 1); null leaves them alone."""

    sparsity: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity is None:
            return
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity}: must be a fraction of zeros in [0, 1)")


def sparsity_table(model: nn.Module, rules: Mapping[str, SparsityRule]) -> dict[str, dict[str, object]]:
    """Layer -> its rule and target, as the run's table shows them.

    Raises:
        ValueError: a rule is left with no layer.
    """
    table: dict[str, dict[str, object]] = {}
    matches = match_layers(model, rules, "prune")
    for layer, (rule_name, rule) in matches.items():
        table[layer] = {
            "prune_rule": rule_name,
            "target_sparsity": rule.sparsity or 0.0,
        }
    return table
