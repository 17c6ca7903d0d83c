"""Options that every rule set has, the tasks' bases, and errors about operations without a price."""

import importlib
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from micronet_cli.scoring.accumulators import ACCUMULATORS
from micronet_cli.scoring.charges import ELEMENTWISE, Charge
from micronet_cli.scoring.prices import PRICES, REMEDIES, Price
from micronet_cli.trace.records import Op, TracedNetwork
from micronet_cli.trace.what_if import with_sparsity

SMALL_IMAGE_PIXELS = 64
# The arithmetic of entries to the challenge, beside the official rules.
ENTRIES = ("seed2019", "kaist2019", "riair2019", "riaircifar2019", "xilinx2019")
# What an option may be.
CHOICES = {
    "unknown": ("error", "warn"),
    "accumulator": ACCUMULATORS,
}


@dataclass(frozen=True)
class Base:
    """What a task's score is relative to.

    Attributes:
        params: parameters of the base network, of 32 bits.
        ops: its operations.
        top1: accuracy in percent that an entry has to reach.
    """

    params: float
    ops: float
    top1: float

    def __post_init__(self) -> None:
        for name in ("params", "ops"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be a positive number")


# [T] MobileNetV2-1.4 and WRN-28-10.
TASKS = {
    "imagenet": Base(6.9e6, 1170e6, 75.0),
    "cifar100": Base(36.5e6, 10.49e9, 80.0),
}


class UnknownOperation(ValueError):
    """An executed operation has no price."""


@dataclass(frozen=True)
class Rules:
    """Options of a rule set; subclasses turn a network into charges.

    Attributes:
        input_shape: (channels, height, width) to trace with, None: the model's own.
        weight_sparsity: what-if: this fraction of zeros in every convolution and linear weight, in [0, 1); None: as is.
        freebie: parameters and multiplications at 16 bits; only if nothing is quantised.
        unknown: an operation without a price is an ``error``, or counted at 32 bits an element with a ``warn``-ing.
        compare: another rule set's name for the waterfall, or None.
        task: key of the bases, None: cifar100 up to 64 pixels, else imagenet.
        bases: tasks of the user's own.
        accumulator: what adds up quantised products: ``fp32``, ``integer``, ``adder_tree``, ``int16`` (integers of 16
            bits at most; a wider sum is a float of 16) or ``fp16``.
        nonlinearity_bits: bits of activation functions, None: as the rule set says.
        paths: early exits: module name -> measured probability that an example leaves after it.
        block: shape of the blocks of a block mask over (C_out, C_in), None: masks of single elements.
        notes: heading -> how this rule set counts it, for the waterfall.
    """

    input_shape: Sequence[int] | None = None
    weight_sparsity: float | None = None
    freebie: bool = False
    unknown: str = "error"
    compare: str | None = None
    task: str | None = None
    bases: Mapping[str, Base] = field(default_factory=dict)
    accumulator: str = "fp32"
    nonlinearity_bits: float | None = None
    paths: Mapping[str, float] = field(default_factory=dict)
    block: Sequence[int] | None = None

    notes: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        check_shape(self.input_shape)
        self._check_choices()
        if self.weight_sparsity is not None and not 0 <= self.weight_sparsity < 1:
            raise ValueError(f"weight_sparsity={self.weight_sparsity}: must be a fraction of zeros in [0, 1) or null")
        bits = self.nonlinearity_bits
        if bits is not None and not 0 < bits <= 32:
            raise ValueError(f"nonlinearity_bits={bits}: must be bits in (0, 32] or null")
        if self.compare is not None:
            rules_named("compare", self.compare)
        if self.block is not None and not _are_sizes(self.block):
            raise ValueError(f"block={self.block}: must be positive sizes, such as [4, 4], or null")
        if not _are_exclusive_probabilities(self.paths.values()):
            raise ValueError(f"paths={dict(self.paths)}: must be probabilities in [0, 1] that sum to at most 1")

    def _check_choices(self) -> None:
        for name, allowed in CHOICES.items():
            chosen = getattr(self, name)
            if chosen not in allowed:
                raise ValueError(f"{name}={chosen}: must be one of {', '.join(allowed)}")
        tasks = self._tasks
        if self.task is not None and self.task not in tasks:
            raise ValueError(f"task={self.task}: must be one of {', '.join(tasks)} or null")

    @property
    def _tasks(self) -> dict[str, Base]:
        return {**TASKS, **self.bases}

    @property
    def name(self) -> str:
        """The rule set's name, as ``score_profile`` reports it."""
        return type(self).__name__.lower()

    def base(self, input_shape: Sequence[int]) -> Base:
        """The base of the task, chosen by the image's size where none is named."""
        task = self.task
        if task is None:
            pixels = max(input_shape[1:], default=0)
            task = "cifar100" if pixels <= SMALL_IMAGE_PIXELS else "imagenet"
        return self._tasks[task]

    def charges(self, network: TracedNetwork) -> list[Charge]:
        """Everything that the network costs under these rules.

        Raises:
            UnknownOperation: an operation has no price (``unknown="error"``).
            ValueError: an option does not fit the network.
        """
        if self.weight_sparsity is not None:
            network = with_sparsity(network, self.weight_sparsity)
        storage = self.storage(network)
        math_charges = self.math(network)
        return [*storage, *math_charges]

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Charges of everything stored."""
        raise NotImplementedError

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Charges of all operations, the mean over examples."""
        raise NotImplementedError

    def weight_of(self, index: int, network: TracedNetwork) -> float:
        """Fraction of the examples that execute the operation with this index."""
        left_before = []
        for name, probability in self.paths.items():
            if name not in network.ends:
                raise ValueError(f"paths={name}: no module of this name was executed")
            if index >= network.ends[name]:
                left_before.append(probability)
        return 1 - math.fsum(left_before)

    def price(self, op: Op) -> Price:
        """The operation's price."""
        found = PRICES.get(op.kind)
        if found is not None:
            return found
        where = f"operation {op.kind!r} in layer {op.layer or '(the network itself)'!r}"
        remedy = ""
        if op.kind in REMEDIES:
            remedy = f"; {REMEDIES[op.kind]}"
        if self.unknown == "error":
            raise UnknownOperation(f"{where} has no price (unknown=warn counts its elements at 32 bits){remedy}")
        warnings.warn(f"{where} has no price: {op.elements:,} elements counted at 32 bits{remedy}", stacklevel=2)
        return Price(ELEMENTWISE, "no price: one a element", elements=(1, 0), as_float=True)


def rules_named(key: str, name: str) -> type[Rules]:
    """The rule set of this name.

    Args:
        key: the option that holds the name, for the message.
        name: ``official`` or one of ``ENTRIES`` (a module of this package and its class), or a class's dotted path.

    Raises:
        ValueError: there is none.
    """
    path = name
    if "." not in name:
        path = f"{__package__}.{name}.{name.capitalize()}"
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute)
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if not isinstance(found, type) or not issubclass(found, Rules):
        raise ValueError(f"{key}={name}: must be official, {', '.join(ENTRIES)} or the dotted path of a rule set")
    return found


def check_shape(shape: Sequence[int] | None) -> None:
    """Raises ValueError unless ``shape`` is null or (channels, height, width)."""
    if shape is None:
        return
    if len(shape) != 3 or not _are_sizes(shape):
        raise ValueError(f"input_shape={shape}: must be [channels, height, width] or null")


def _are_sizes(numbers: Sequence[int]) -> bool:
    """Whether these are positive whole numbers, and one at least."""
    for number in numbers:
        if not isinstance(number, int) or number < 1:
            return False
    return len(numbers) > 0


def _are_exclusive_probabilities(values: Collection[float]) -> bool:
    """Whether these are probabilities of events of which at most one happens."""
    in_range = all(0 <= value <= 1 for value in values)
    return in_range and sum(values) <= 1 + 1e-9
