"""The recipes that the CIFAR-10 benchmark compares: what every stage and the scorer are told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe, which begins from the one before; the first begins from the network in float.

    Attributes:
        name: of ``stage=``, and of its directory.
        arguments: of ``micronet``.
        teacher: whether a larger network teaches.
        epochs: times those that the benchmark gives a stage; recipes have as many in all.
    """

    name: str
    arguments: tuple[str, ...]
    teacher: bool = False
    epochs: int = 1


@dataclass(frozen=True)
class Recipe:
    """How a network is compressed, and how its additions are counted.

    Attributes:
        title: first column of the table.
        stages: in their order.
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
STEM_AND_CLASSIFIER = (
    "quantize.rules.stem.match={stem}",
    "quantize.rules.stem.weight_bits=4",
    "quantize.rules.stem.activation_bits=8",
    "quantize.rules.last.match={classifier}",
    "quantize.rules.last.weight_bits=8",
    "quantize.rules.last.activation_bits=8",
)
# Residual sums have operands of 8 bits.
ADDS = (
    r"quantize.outputs.adds.match=(.*\.)?bn\d|layer\d\.\d",
    "quantize.outputs.adds.activation_bits=8",
)
MICRONET = Recipe(
    "micronet: AGP to 74 % with the teacher, w3a5 (first stage w4, stem w4a8, last w8a8), 8-bit adds, adder tree",
    stages=(
        Stage("prune", (*PRUNE, "prune.rules.conv.sparsity=0.74", "prune.schedule.end=0.4"), teacher=True),
        Stage(
            "qat",
            (
                *QAT,
                "quantize=w4a4",
                "quantize.weight_bits=3",
                "quantize.activation_bits=5",
                "quantize.rules.early.match=layer1.*",
                "quantize.rules.early.weight_bits=4",
                *STEM_AND_CLASSIFIER,
                *ADDS,
            ),
            teacher=True,
        ),
    ),
    score=("score.accumulator=adder_tree",),
)
RECIPES = {"reference": REFERENCE, "micronet": MICRONET}
