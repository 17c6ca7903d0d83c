"""A trial run behind the attaching: rules whose compression no product sees are named."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from micronet_cli.compression.compressor import Compressor
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.layers.products import OPERANDS
from micronet_cli.network import Network
from micronet_cli.trace.effects import Effects, effects

log = logging.getLogger(__name__)

SHOWN_LAYERS = 3
LARGE_SHARE = 0.01  # of the weights of all products
# Column of a compressor's table -> what is wrong where the target has no effect.
FAULTS = {
    "target_sparsity": "the zeros of the mask do not reach a product",
    "weight_bits": "the quantised weight does not reach a product",
    "activation_bits": "the input's quantiser is never called",
    "output_bits": "the output's quantiser is never called",
}


@dataclass
class _Tally:
    """A rule's targets.

    Attributes:
        working: how many have an effect.
        faults: column -> layers whose target in it has none.
    """

    working: int = 0
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def check_effects(compressors: Mapping[str, Compressor], network: Network) -> list[str]:
    """Run the network once: rules without any effect, a line each; of those with some, what has none is logged.

    Args:
        compressors: config group -> the compressor attached.
        network: with all of them attached.
    """
    if not compressors:
        return []
    try:
        seen = effects(network.model, network.spec.size)
    except (ValueError, AssertionError):
        return []  # scoring runs into the same, and says what to do
    _warn_of_others(network, seen)
    problems = []
    for group, compressor in compressors.items():
        if getattr(compressor, "attention", False) and seen.float_products:
            log.warning("%s.attention: in float stay products of %s", group, _listed(seen.float_products))
        tallies = _tallies(group, compressor.table(network.model), seen)
        if isinstance(compressor, Quantizer):
            tallies |= _output_tallies(compressor, network, seen)
        for where, tally in tallies.items():
            if not tally.faults:
                continue
            found = f"{where}: {_described(tally)}"
            if tally.working:
                log.warning("%s", found)
            else:
                problems.append(f"{found}; leave these layers to a later rule with null for its target")
    return problems


def _warn_of_others(network: Network, seen: Effects) -> None:
    """Tell of products' weights in modules that no rule can choose, where they are many."""
    share = sum(seen.others.values())
    if share < LARGE_SHARE:
        return
    first = next(iter(seen.others))
    kind = type(network.model.get_submodule(first)).__name__
    number = len(seen.others)
    log.warning(
        "%.0f %% of the weights stay as they are, in %d modules that are no convolution or linear layer, as %s (%s): "
        "no rule of prune or quantize chooses them",
        100 * share, number, first, kind,
    )  # fmt: skip


def _tallies(group: str, table: Mapping[str, Mapping[str, Any]], seen: Effects) -> dict[str, _Tally]:
    """Config path of a rule -> which of its targets have an effect."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for layer, columns in table.items():
        rule = columns.get(f"{group}_rule")
        if rule is None:  # a compressor of one's own shows what it likes
            continue
        for column in FAULTS:
            if not columns.get(column):
                continue
            tally = tallies[f"{group}.rules.{rule}"]
            if _works(column, layer, seen):
                tally.working += 1
            else:
                tally.faults[column].append(layer)
    return tallies


def _output_tallies(quantizer: Quantizer, network: Network, seen: Effects) -> dict[str, _Tally]:
    """The same for the rules of outputs."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for module, (name, rule) in quantizer.output_rules(network.model).items():
        if quantizer.output_quantizer(rule) is None:
            continue
        tally = tallies[f"quantize.outputs.{name}"]
        if f"{module}.output_fake_quantize" in seen.quantizers:
            tally.working += 1
        else:
            tally.faults["output_bits"].append(module)
    return tallies


def _works(column: str, layer: str, seen: Effects) -> bool:
    if column == "target_sparsity":
        return layer in seen.masks
    if column == "weight_bits":
        return layer in seen.weights
    if f"{layer}.input_fake_quantize" in seen.quantizers:
        return True
    return any(name.startswith(f"{layer}.{OPERANDS}.") for name in seen.quantizers)


def _described(tally: _Tally) -> str:
    """What has no effect, and where."""
    parts = []
    for column, layers in tally.faults.items():
        parts.append(f"no effect on {_listed(layers)} ({FAULTS[column]})")
    return "; ".join(parts)


def _listed(layers: Sequence[str]) -> str:
    """The first few, and how many others there are."""
    shown = ", ".join(layers[:SHOWN_LAYERS])
    others = len(layers) - SHOWN_LAYERS
    if others > 0:
        shown += f" and {others} others"
    return shown
