"""Where the things are now that files of earlier versions name by their dotted paths then.

A dotted path in a saved file is a name, not a place: rooms may move as long as this table grows with them.
"""

from typing import Any

RENAMED = {
    "micronet_cli.compression.activation_quantizers.LSQ": (
        "micronet_cli.compression.quantization.activation_quantizers.ActivationLSQ"
    ),
    "micronet_cli.compression.activation_quantizers.LSQPlus": (
        "micronet_cli.compression.quantization.activation_quantizers.ActivationLSQPlus"
    ),
    "micronet_cli.compression.activation_quantizers.PACT": (
        "micronet_cli.compression.quantization.activation_quantizers.PACT"
    ),
    "micronet_cli.compression.activation_quantizers.TrackedRange": (
        "micronet_cli.compression.quantization.activation_quantizers.TrackedRange"
    ),
    "micronet_cli.compression.adaround.AdaRound": "micronet_cli.compression.quantization.adaround.AdaRound",
    "micronet_cli.compression.post_training.PostTraining": (
        "micronet_cli.compression.quantization.post_training.PostTraining"
    ),
    "micronet_cli.compression.pruner.Pruner": "micronet_cli.compression.pruning.pruner.Pruner",
    "micronet_cli.compression.pruner.SparsityRule": "micronet_cli.compression.pruning.pruner.SparsityRule",
    "micronet_cli.compression.quantizer.BitsRule": "micronet_cli.compression.quantization.quantizer.BitsRule",
    "micronet_cli.compression.quantizer.OutputRule": "micronet_cli.compression.quantization.quantizer.OutputRule",
    "micronet_cli.compression.quantizer.Quantizer": "micronet_cli.compression.quantization.quantizer.Quantizer",
    "micronet_cli.compression.regrow.Regrow": "micronet_cli.compression.pruning.regrow.Regrow",
    "micronet_cli.compression.removal.Removal": "micronet_cli.compression.pruning.removal.Removal",
    "micronet_cli.compression.second_order.SecondOrderPruner": (
        "micronet_cli.compression.pruning.second_order.SecondOrderPruner"
    ),
    "micronet_cli.compression.stored_range.StoredRanges": "micronet_cli.compression.quantization.fixed_grid.FixedGrids",
    "micronet_cli.compression.weight_quantizers.AccumulatorAware": (
        "micronet_cli.compression.quantization.weight_quantizers.AccumulatorAware"
    ),
    "micronet_cli.compression.weight_quantizers.Binary": (
        "micronet_cli.compression.quantization.weight_quantizers.Binary"
    ),
    "micronet_cli.compression.weight_quantizers.DoReFa": (
        "micronet_cli.compression.quantization.weight_quantizers.DoReFa"
    ),
    "micronet_cli.compression.weight_quantizers.LSQ": (
        "micronet_cli.compression.quantization.weight_quantizers.WeightLSQ"
    ),
    "micronet_cli.compression.weight_quantizers.LSQPlus": (
        "micronet_cli.compression.quantization.weight_quantizers.WeightLSQPlus"
    ),
    "micronet_cli.compression.weight_quantizers.RangeLinear": (
        "micronet_cli.compression.quantization.weight_quantizers.RangeLinear"
    ),
    "micronet_cli.compression.weight_quantizers.Ternary": (
        "micronet_cli.compression.quantization.weight_quantizers.Ternary"
    ),
    "micronet_cli.loggers.MLflow": "micronet_cli.runs.loggers.MLflow",
    "micronet_cli.loggers.TensorBoard": "micronet_cli.runs.loggers.TensorBoard",
    "micronet_cli.loggers.WeightsAndBiases": "micronet_cli.runs.loggers.WeightsAndBiases",
    "micronet_cli.search.Search": "micronet_cli.explore.search.Search",
    "micronet_cli.training.settings.Trainer": "micronet_cli.training.settings.TrainerSettings",
}


def with_new_names(node: Any) -> Any:
    """A config made of dicts, lists and scalars, with today's dotted paths in the place of earlier ones.

    >>> with_new_names({"a": [{"_target_": "micronet_cli.search.Search", "trials": 3}]})
    {'a': [{'_target_': 'micronet_cli.explore.search.Search', 'trials': 3}]}
    """
    if isinstance(node, dict):
        return {key: with_new_names(value) for key, value in node.items()}
    if isinstance(node, list):
        return [with_new_names(item) for item in node]
    if isinstance(node, str):
        return RENAMED.get(node, node)
    return node
