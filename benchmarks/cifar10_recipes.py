"""The recipes that the CIFAR-10 benchmark compares: what every stage and the scorer are told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe, which begins from the one before; the first begins from the network in float.

    Attributes:
        name: of ``stage=``, and of its directory.
        arguments: of ``micronet``.
        teacher: whether a larger network teaches.
    """

    name: str
    arguments: tuple[str, ...]
    teacher: bool = False


@dataclass(frozen=True)
class Recipe:
    """How a network is compressed, and how its additions are counted.

    Attributes:
        title: first column of the table.
        stages: in their order; each trains for as many epochs.
        score: arguments of the scorer.
    """

    title: str
    stages: tuple[Stage, ...]
    score: tuple[str, ...] = ()


# Of both recipes.
PRUNE = ("data.val_fraction=0.02", "trainer.amp=bf16", "optim.lr=0.03")
# BatchNorm's averages do not follow a network whose ranges still move.
QAT = ("data.val_fraction=0.02", "trainer.reestimate_bn_batches=100", "optim.lr=0.03")

REFERENCE = Recipe(
    "reference: AGP to 61 %, range-linear w4a4, classifier w2.5 with a float input",
    stages=(
        Stage("prune", (*PRUNE, "prune.rules.conv.sparsity=0.613")),
        Stage("qat", (*QAT, "quantize=micronet2019"), teacher=True),
    ),
)
# All layers are equally sparse, but for those whose output changes most or least as their weights go, by
# stage=sensitivity. What each choice bought is in cifar10_choices.md.
SPARSITY = (
    "prune.rules.conv.sparsity=0.805",
    "prune.rules.stem.match={stem}",
    "prune.rules.stem.sparsity=0.3",
    r"prune.rules.entry.match=layer[23]\.0\.conv1",
    "prune.rules.entry.sparsity=0.7",
    r"prune.rules.exit.match=layer[23]\.2\.conv2",
    "prune.rules.exit.sparsity=0.92",
    "prune.rules.last.match={classifier}",
    "prune.rules.last.sparsity=0.5",
)
# 4-bit inputs pay where their range is the one of least error; the range of minimum and maximum needs 5 bits.
INPUTS = (
    "quantize.activation_bits=4",
    "+quantize.activation._target_=micronet_cli.compression.quantization.activation_quantizers.ActivationLSQPlus",
    "+quantize.activation.estimate=micronet_cli.functional.calibration.mse",
)
STEM_AND_CLASSIFIER = (
    "quantize.rules.stem.match={stem}",
    "quantize.rules.stem.weight_bits=4",
    "quantize.rules.stem.activation_bits=6",
    "quantize.rules.last.match={classifier}",
    "quantize.rules.last.weight_bits=8",
    "quantize.rules.last.activation_bits=8",
)
# Residual sums have operands of 8 bits.
ADDS = (
    r"quantize.outputs.adds.match=(.*\.)?bn\d|layer\d\.\d",
    "quantize.outputs.adds.activation_bits=8",
)
WEIGHTS_AND_INPUTS = ("quantize=w4a4", "quantize.weight_bits=3", *INPUTS, *STEM_AND_CLASSIFIER, *ADDS)
MICRONET = Recipe(
    "micronet: AGP to 81 % with the teacher, w3a4 with learned ranges (stem w4a6, last w8a8), 8-bit adds, adder tree",
    stages=(
        Stage("prune", (*PRUNE, *SPARSITY, "prune.schedule.end=0.4"), teacher=True),
        Stage("qat", (*QAT, "trainer.amp=bf16", *WEIGHTS_AND_INPUTS), teacher=True),
    ),
    score=("score.accumulator=adder_tree",),
)
RECIPES = {"reference": REFERENCE, "micronet": MICRONET}
