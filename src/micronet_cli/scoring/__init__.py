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
    chosen = rule_set(rules, **options) if isinstance(rules, str) else replace(rules, **options)
    return score_with(model, chosen, input_shape).metrics()


def score_with(model: "nn.Module | Trace", rules: "Rules", input_shape: Sequence[int] | None = None) -> "ScoreReport":
    """The report of a model, or of a trace made before, under a rule set.

    Args:
        model: a model, or its ``Trace`` (whose bits and zeros are read anew, without tracing).
        rules: its own ``input_shape`` comes before the argument's.
        input_shape: (channels, height, width); None: the model's own.

    Raises:
        ValueError: an operation has no price, or an option does not fit the network.
    """
    from micronet_cli.layers.rules import own_shape
    from micronet_cli.scoring.dense import dense_charges
    from micronet_cli.scoring.score_report import ScoreReport
    from micronet_cli.trace.trace import Trace

    traced = model if isinstance(model, Trace) else Trace(model, rules.input_shape or input_shape or own_shape(model))
    network = traced.read(codes=rules.accumulator == "integer", block=rules.block)
    report = ScoreReport(rules, network, rules.charges(network), dense_charges(traced.structure, rules))
    if rules.compare is None:
        return report
    shared = {name: getattr(rules, name) for name in ("input_shape", "task", "bases", "weight_sparsity", "unknown")}
    other = rule_set(rules.compare, **shared)
    return replace(report, compared=ScoreReport(other, network, other.charges(network), []))
