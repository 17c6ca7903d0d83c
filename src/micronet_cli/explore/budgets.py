"""Budgets: every layer's sparsity and bits, chosen over a table of sensitivities to lose least."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from micronet_cli.explore.prices import AS_IT_IS, Option, Prices
from micronet_cli.explore.trial import ACTIVATION_BITS, KINDS, SPARSITY, WEIGHT_BITS
from micronet_cli.functional.allocation import allocate

ROUNDS = 8
TOLERANCE = 0.002  # of the target
OPTIONS = "(sensitivity.sparsities, weight_bits, activation_bits)"
LATENCY = "latency_ms"
# Target -> the key of metrics.json that says what was reached of it.
FIGURES = {"score": "micronet_score", "storage_bytes": "storage_bytes", "math_ops": "math_ops", LATENCY: LATENCY}
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Budget:
    """What may be spent, and on which loss; one target is given.

    Attributes:
        score: the MicroNet score.
        storage_bytes: bytes of storage.
        math_ops: operations, weighted by bits.
        latency_ms: milliseconds in the fastest of ``latency.engines``; measured, so that ``solve`` cannot reach it.
        margin: fraction of the target that is left free, in [0, 1), for what training changes: a weight that it moves
            away from 0 is charged.
        loss: the table's column whose sum over layers is made small; all but ``divergence`` need labels.
        table: sensitivity.csv, or the run directory that holds one; null: that of ``init_from``.
    """

    score: float | None = None
    storage_bytes: float | None = None
    math_ops: float | None = None
    latency_ms: float | None = None
    margin: float = 0.0
    loss: Literal["divergence", "loss_increase", "top1_drop"] = "divergence"
    table: str | None = None

    def __post_init__(self) -> None:
        given = self._given()
        for name, amount in given.items():
            if amount <= 0:
                raise ValueError(f"{name}={amount}: must be a positive number")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin={self.margin}: must be a fraction of the target in [0, 1)")
        if len(given) > 1:
            first, second, *_ = given
            raise ValueError(f"{second}={given[second]}: budget.{first} is given too; take one of them")

    @property
    def target(self) -> tuple[str, float] | None:
        """(name, amount) of what is given."""
        for name, amount in self._given().items():
            return name, amount
        return None

    @property
    def aim(self) -> float:
        """The target without its margin."""
        assert self.target is not None
        _, amount = self.target
        return (1 - self.margin) * amount

    def _given(self) -> dict[str, float]:
        """Name -> amount of every target that is given."""
        given = {}
        for name in FIGURES:
            amount = getattr(self, name)
            if amount is not None:
                given[name] = amount
        return given

    def check_within_reach(
        self, layers: Collection[str], values: Mapping[str, Sequence[float]], prices: Prices
    ) -> None:
        """Before any table is there: whether the target lies between the least and what the network costs as it is.

        Args:
            layers: all that may be changed.
            values: kind of a table's rows -> what is tried of it; a kind that is left out stays as it is. Prices are
                taken to fall with the bits.
            prices: of every layer's options.

        Raises:
            ValueError: it lies below or above.
        """
        assert self.target is not None
        name, target = self.target
        whole = prices.rest((), name)
        if target >= whole:
            raise ValueError(f"{name}={target:g}: the network has {whole:.4g} as it is; give less")
        sparsities = [None, *values.get(SPARSITY, ())]
        fewest_bits = [min(values.get(kind, ()), default=None) for kind in (WEIGHT_BITS, ACTIVATION_BITS)]
        options = [Option(sparsity, *fewest_bits) for sparsity in sparsities]
        free = dict.fromkeys([AS_IT_IS, *options], 0.0)
        menu = _Menu(dict.fromkeys(layers, free), prices, name)
        self._check_least(prices.rest(layers, name) + menu.least)

    def _check_least(self, least: float) -> None:
        """Raises ValueError where the target is below the least that the options allow."""
        assert self.target is not None
        name, target = self.target
        if least > self.aim:
            needed = _rounded_up(least / (1 - self.margin))
            raise ValueError(f"{name}={target:g}: must be at least {needed} with the table's options {OPTIONS}")

    def solve(
        self, rows: Rows, prices: Prices, total: Callable[[Mapping[str, Option]], Mapping[str, Any]]
    ) -> dict[str, Option]:
        """Layer -> its option.

        Losses are added up over layers, and within one over its sparsity and bits. Prices are exact up to what layers
        share, so the target of the sum is moved until the scorer's own figure is within 0.2 % below the aim.

        Args:
            rows: the table of sensitivities.
            prices: of every layer's options.
            total: options -> the scorer's figures of the whole network.

        Raises:
            ValueError: the least that the table's options allow is above the target.
        """
        assert self.target is not None
        name, given = self.target
        target = self.aim
        losses = {}
        for layer, layer_rows in by_layer(rows).items():
            losses[layer] = self._losses(layer_rows)
        menu = _Menu(losses, prices, name)
        rest = prices.rest(losses, name)
        self._check_least(rest + menu.least)
        aim = target - rest
        best: dict[str, Option] | None = None
        best_spent = 0.0
        for _ in range(ROUNDS):
            if aim < menu.least:
                break
            solution = menu.pick(aim)
            figures = total(solution)
            spent = float(figures[FIGURES[name]])
            if best_spent < spent <= target:
                best = solution
                best_spent = spent
            left = target - spent
            close_enough = 0 <= left <= TOLERANCE * target
            if close_enough or _nothing_changes(solution):
                break
            aim += left
            if left < 0:
                # A little further, or rounding would end just above the target again.
                aim -= TOLERANCE / 4 * target
        if best is None:
            raise ValueError(f"{name}={given:g}: not reached with the table's options")
        return best

    def _losses(self, rows: Rows) -> dict[Option, float]:
        """Option -> loss of one layer: all combinations, and the layer as it is."""
        found: dict[str, dict[float | None, float]] = {kind: {} for kind in KINDS}
        for row in rows:
            found[row["kind"]][row["value"]] = row[self.loss]
        if found[SPARSITY]:
            found[SPARSITY][None] = 0.0  # dense, or as sparse as it is
        kinds = []
        for by_value in found.values():
            untried: dict[float | None, float] = {None: 0.0}
            kinds.append(by_value or untried)
        losses = {AS_IT_IS: 0.0}
        for values in itertools.product(*kinds):
            parts = [by_value[value] for by_value, value in zip(kinds, values, strict=True)]
            losses[Option(*values)] = math.fsum(parts)
        return losses


def _rounded_up(amount: float) -> str:
    """With four digits, or a whole number where it has more, and not below the amount.

    >>> _rounded_up(0.00088191), _rounded_up(47680.2), _rounded_up(9.0)
    ('0.000882', '47681', '9')
    """
    if amount >= 1000:
        return str(math.ceil(amount))
    digits = 3 - math.floor(math.log10(amount))
    # What is a whole number of last digits up to rounding is that number.
    in_last_digits = math.ceil(amount * 10**digits - 1e-6)
    return f"{in_last_digits / 10**digits:g}"


class _Menu:
    """Every layer's options, each with its loss and its price.

    Attributes:
        least: what the cheapest options cost together.
    """

    def __init__(self, losses: Mapping[str, Mapping[Option, float]], prices: Prices, figure: str) -> None:
        self._losses = losses
        self._costs = []
        for layer, options in losses.items():
            costs = [prices.of(layer, option, figure) for option in options]
            self._costs.append(costs)
        self.least = math.fsum(min(costs) for costs in self._costs)

    def pick(self, amount: float) -> dict[str, Option]:
        """Layer -> option: those that lose least and cost at most ``amount`` together."""
        losses = [list(options.values()) for options in self._losses.values()]
        picked = allocate(losses, self._costs, amount)
        found = {}
        for layer, index in zip(self._losses, picked, strict=True):
            options = list(self._losses[layer])
            found[layer] = options[index]
        return found


def _nothing_changes(solution: Mapping[str, Option]) -> bool:
    """Whether every layer stays as it is."""
    return all(option == AS_IT_IS for option in solution.values())


def by_layer(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each layer."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["layer"], []).append(row)
    return found
