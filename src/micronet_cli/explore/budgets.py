"""Budgets: every layer's sparsity and bits, chosen over a table of sensitivities to lose least."""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from micronet_cli.explore.prices import AS_IT_IS, Option, Prices
from micronet_cli.explore.trial import KINDS, SPARSITY
from micronet_cli.functional.allocation import allocate

ROUNDS, TOLERANCE = 8, 0.002
FIGURES = {"score": "micronet_score", "storage_bytes": "storage_bytes", "math_ops": "math_ops"}
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Budget:
    """What may be spent, and on which loss; one target is given.

    Attributes:
        score: the MicroNet score.
        storage_bytes: bytes of storage.
        math_ops: operations, weighted by bits.
        loss: the table's column whose sum over layers is made small; all but ``divergence`` need labels.
        table: sensitivity.csv, or the run directory that holds one; null: that of ``init_from``.
    """

    score: float | None = None
    storage_bytes: float | None = None
    math_ops: float | None = None
    loss: Literal["divergence", "loss_increase", "top1_drop"] = "divergence"
    table: str | None = None

    def __post_init__(self) -> None:
        for name in FIGURES:
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be a positive number")
        if len(given := [name for name in FIGURES if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{given[1]}={getattr(self, given[1])}: budget.{given[0]} is given too; take one of them")

    @property
    def target(self) -> tuple[str, float] | None:
        """(name, amount) of what is given."""
        return next(((name, getattr(self, name)) for name in FIGURES if getattr(self, name) is not None), None)

    def solve(
        self, rows: Rows, prices: Prices, total: Callable[[Mapping[str, Option]], Mapping[str, Any]]
    ) -> dict[str, Option]:
        """Layer -> its option.

        Losses are added up over layers, and within one over its sparsity and bits. Prices are exact up to what layers
        share, so the target of the sum is moved until the scorer's own figure is within 0.2 % below the target.

        Args:
            rows: the table of sensitivities.
            prices: of every layer's options.
            total: options -> the scorer's figures of the whole network.

        Raises:
            ValueError: the least that the table's options allow is above the target.
        """
        assert self.target is not None
        name, target = self.target
        losses = {layer: self._losses(layer_rows) for layer, layer_rows in by_layer(rows).items()}
        choices = {layer: list(options) for layer, options in losses.items()}
        costs = [[prices.of(layer, option, name) for option in options] for layer, options in choices.items()]
        rest, least = prices.rest(choices, name), math.fsum(map(min, costs))
        if rest + least > target:
            raise ValueError(f"{name}={target:g}: must be at least {rest + least:.4g} with the table's options")
        aim, found, reached = target - rest, None, 0.0
        for _ in range(ROUNDS):
            if aim < least:
                break
            picked = allocate([list(options.values()) for options in losses.values()], costs, aim)
            solution = {layer: choices[layer][i] for (layer, _), i in zip(choices.items(), picked, strict=True)}
            spent = float(total(solution)[FIGURES[name]])
            if reached < spent <= target:
                found, reached = solution, spent
            if 0 <= target - spent <= TOLERANCE * target or all(option == AS_IT_IS for option in solution.values()):
                break
            aim += (target - spent) - (spent > target) * TOLERANCE / 4 * target
        if found is None:
            raise ValueError(f"{name}={target:g}: not reached with the table's options")
        return found

    def _losses(self, rows: Rows) -> dict[Option, float]:
        """Option -> loss of one layer: all combinations, and the layer as it is."""
        found = {kind: {row["value"]: row[self.loss] for row in rows if row["kind"] == kind} for kind in KINDS}
        if found[SPARSITY]:
            found[SPARSITY][None] = 0.0  # dense, or as sparse as it is
        kinds = [list((found[kind] or {None: 0.0}).items()) for kind in KINDS]
        combined = {
            Option(*(value for value, _ in parts)): math.fsum(loss for _, loss in parts)
            for parts in itertools.product(*kinds)
        }
        return {AS_IT_IS: 0.0} | combined


def by_layer(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each layer."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["layer"], []).append(row)
    return found


def prune_rules(options: Mapping[str, Option]) -> dict[str, dict[str, Any]]:
    """Rules of the ``prune`` group, one a sparsity; layers left as they are have none.

    >>> prune_rules({"a": Option(0.5), "b": Option(), "c": Option(0.5)})
    {'s500': {'match': 'a|c', 'sparsity': 0.5}}
    """
    found: dict[float, list[str]] = defaultdict(list)
    for layer, option in options.items():
        if option.sparsity is not None:
            found[option.sparsity].append(layer)
    return {_name(f"s{1000 * s:g}"): {"match": _match(found[s]), "sparsity": s} for s in sorted(found)}


def quantize_rules(options: Mapping[str, Option]) -> dict[str, dict[str, Any]]:
    """Rules of the ``quantize`` group, one a pair of bits; None is float.

    >>> quantize_rules({"a": Option(None, 4, None), "b": Option()})
    {'w4': {'match': 'a', 'weight_bits': 4, 'activation_bits': None}}
    """
    found: dict[tuple, list[str]] = defaultdict(list)
    for layer, option in options.items():
        if option.weight_bits is not None or option.activation_bits is not None:
            found[option.weight_bits or 0, option.activation_bits or 0].append(layer)
    return {
        _name("".join(f"{sign}{bits:g}" for sign, bits in (("w", weight), ("a", activation)) if bits)): {
            "match": _match(found[weight, activation]),
            "weight_bits": weight or None,
            "activation_bits": activation or None,
        }
        for weight, activation in sorted(found)
    }


def _name(text: str) -> str:
    """A rule's name: a dot would cut it in two on the command line."""
    return text.replace(".", "_")


def _match(layers: Sequence[str]) -> str:
    return "|".join(re.escape(layer) for layer in layers)
