"""The MicroNet score of any PyTorch classifier, counted from what it executes.

>>> import torch
>>> layer = torch.nn.Linear(4, 2, bias=False)
>>> figures = score(layer, input_shape=(1, 1, 4))
>>> figures["storage_params"], figures["multiplications"], figures["additions"]
(8.0, 8.0, 6.0)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from micronet_cli.scoring.rules import Rules
    from micronet_cli.scoring.score_report import ScoreReport
    from micronet_cli.trace.trace import Trace

DEFAULT_INPUT_SHAPE = (3, 224, 224)


def rule_set(name: str, **options: Any) -> "Rules":
    """The rule set of this name with these options.

    Args:
        name: see ``micronet_cli.scoring.rules.rules_named``.
        options: see ``micronet_cli.scoring.rules.Rules``.

    Raises:
        ValueError: no such rule set, or a bad option.
    """
    from micronet_cli.scoring.rules import rules_named

    return rules_named("rules", name)(**options)


def score(
    model: "nn.Module",
    input_shape: Sequence[int] | None = DEFAULT_INPUT_SHAPE,
    rules: "str | Rules" = "official",
    **options: Any,
) -> dict[str, float | str]:
    """The figures of ``metrics.json``: micronet_score, storage_params, math_ops and the others.

    Args:
        model: any classifier; it is left as it was.
        input_shape: (channels, height, width); None: the model's own.
        rules: a rule set or its name.
        options: of the rule set, where a name is given.
    """
    if isinstance(rules, str):
        rules = rule_set(rules)
    chosen = replace(rules, **options)
    report = score_with(model, chosen, input_shape)
    return report.metrics()


def score_with(
    model: "nn.Module | Trace",
    rules: "Rules",
    input_shape: Sequence[int] | None = None,
) -> "ScoreReport":
    """The report of a model, or of a trace made before, under a rule set.

    Args:
        model: a model, or its ``Trace`` (whose bits and zeros are read anew, without tracing).
        rules: its own ``input_shape`` comes before the argument's.
        input_shape: (channels, height, width); None: the model's own.

    Raises:
        ValueError: an operation has no price, or an option does not fit the network.
    """
    from micronet_cli.layers.rules import own_shape
    from micronet_cli.scoring.accumulators import NEED_CODES
    from micronet_cli.scoring.dense import dense_charges
    from micronet_cli.scoring.score_report import ScoreReport
    from micronet_cli.trace.trace import Trace

    if isinstance(model, Trace):
        trace = model
    else:
        shape = rules.input_shape or input_shape or own_shape(model)
        trace = Trace(model, shape)
    needs_codes = rules.accumulator in NEED_CODES
    network = trace.read(codes=needs_codes, block=rules.block)
    charges = rules.charges(network)
    dense = dense_charges(trace.structure, rules)
    report = ScoreReport(rules, network, charges, dense)
    if rules.compare is None:
        return report
    other = _rules_to_compare(rules, rules.compare)
    compared = ScoreReport(other, network, other.charges(network), dense_charges=[])
    return replace(report, compared=compared)


def _rules_to_compare(rules: "Rules", name: str) -> "Rules":
    """The rule set of this name, with those options that every rule set understands alike."""
    return rule_set(
        name,
        input_shape=rules.input_shape,
        task=rules.task,
        bases=rules.bases,
        weight_sparsity=rules.weight_sparsity,
        unknown=rules.unknown,
    )
