"""What the dense float network costs, beside which every figure is seen."""

from dataclasses import replace
from weakref import WeakKeyDictionary

from micronet_cli.scoring.charges import Charge
from micronet_cli.scoring.rules import Rules
from micronet_cli.trace.records import TracedNetwork
from micronet_cli.trace.what_if import without_compression

_COUNTED: WeakKeyDictionary[TracedNetwork, tuple[Rules, list[Charge]]] = WeakKeyDictionary()


def dense_charges(network: TracedNetwork, rules: Rules) -> list[Charge]:
    """The charges of ``network`` in float32 and without a zero; counted once for the same network and rules."""
    known = _COUNTED.get(network)
    if known is not None and known[0] is rules:
        return known[1]
    plain = replace(rules, weight_sparsity=None, freebie=False)
    charges = plain.charges(without_compression(network))
    _COUNTED[network] = (rules, charges)
    return charges
