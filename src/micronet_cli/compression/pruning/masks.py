"""Masks that stay as they are: what pruning without training leaves in a network's history."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from micronet_cli.compression.pruning.sparsity_rules import SparsityRule, sparsity_table
from micronet_cli.layers.effective_weight import attach_mask
from micronet_cli.layers.rules import as_rules, match_layers


@dataclass
class Masks:
    """A mask for every ruled layer, which nobody shrinks; a checkpoint brings its values.

    Attributes:
        rules: rule name -> layers and their sparsity, as the pruner had them.
    """

    rules: Mapping[str, SparsityRule]

    def __post_init__(self) -> None:
        self.rules = as_rules(self.rules, SparsityRule)

    @property
    def reads_gradients(self) -> bool:
        """False: nothing is trained."""
        return False

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask; structure only.

        Raises:
            ValueError: a rule is left with no layer, or a layer cannot be masked.
        """
        for name, (_, rule) in match_layers(model, self.rules, "prune").items():
            if rule.sparsity:
                layer = model.get_submodule(name)
                attach_mask(layer)

    def update(self, step: int, total_steps: int) -> bool:
        """Nothing moves."""
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return sparsity_table(model, self.rules)
