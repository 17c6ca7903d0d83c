"""Options that every rule set has, the tasks' bases, and errors about operations without a price."""

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from micronet_cli.scoring.charges import ELEMENTWISE, Charge
from micronet_cli.scoring.prices import PRICES, Price
from micronet_cli.trace.records import Op, TracedNetwork
from micronet_cli.trace.what_if import with_sparsity

SMALL_IMAGE_PIXELS = 64
# What an option may be.
CHOICES = {"unknown": ("error", "warn"), "accumulator": ("fp32", "integer", "adder_tree")}


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
TASKS = {"imagenet": Base(6.9e6, 1170e6, 75.0), "cifar100": Base(36.5e6, 10.49e9, 80.0)}


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
        accumulator: ``fp32``, ``integer`` or ``adder_tree``.
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
        if self.weight_sparsity is not None and not 0 <= self.weight_sparsity < 1:
            raise ValueError(f"weight_sparsity={self.weight_sparsity}: must be a fraction of zeros in [0, 1) or null")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: must be one of {', '.join(allowed)}")
        if self.task is not None and self.task not in self._tasks:
            raise ValueError(f"task={self.task}: must be one of {', '.join(self._tasks)} or null")
        if self.nonlinearity_bits is not None and not 0 < self.nonlinearity_bits <= 32:
            raise ValueError(f"nonlinearity_bits={self.nonlinearity_bits}: must be bits in (0, 32] or null")
        if self.compare is not None:
            rules_named("compare", self.compare)
        if self.block is not None and (not self.block or any(not isinstance(n, int) or n < 1 for n in self.block)):
            raise ValueError(f"block={self.block}: must be positive sizes, such as [4, 4], or null")
        bad = {name: p for name, p in self.paths.items() if not 0 <= p <= 1}
        if bad or sum(self.paths.values()) > 1 + 1e-9:
            raise ValueError(f"paths={dict(self.paths)}: must be probabilities in [0, 1] that sum to at most 1")

    @property
    def _tasks(self) -> dict[str, Base]:
        return {**TASKS, **self.bases}

    @property
    def name(self) -> str:
        """The rule set's name, as ``score_profile`` reports it."""
        return type(self).__name__.lower()

    def base(self, input_shape: Sequence[int]) -> Base:
        """The base of the task, chosen by the image's size where none is named."""
        small = max(input_shape[1:], default=0) <= SMALL_IMAGE_PIXELS
        return self._tasks[self.task or ("cifar100" if small else "imagenet")]

    def charges(self, network: TracedNetwork) -> list[Charge]:
        """Everything that the network costs under these rules.

        Raises:
            UnknownOperation: an operation has no price (``unknown="error"``).
            ValueError: an option does not fit the network.
        """
        if self.weight_sparsity is not None:
            network = with_sparsity(network, self.weight_sparsity)
        return [*self.storage(network), *self.math(network)]

    def storage(self, network: TracedNetwork) -> list[Charge]:
        """Charges of everything stored."""
        raise NotImplementedError

    def math(self, network: TracedNetwork) -> list[Charge]:
        """Charges of all operations, the mean over examples."""
        raise NotImplementedError

    def weight_of(self, index: int, network: TracedNetwork) -> float:
        """Fraction of the examples that execute the operation with this index."""
        unknown = [name for name in self.paths if name not in network.ends]
        if unknown:
            raise ValueError(f"paths={unknown[0]}: no module of this name was executed")
        return 1 - math.fsum(p for name, p in self.paths.items() if index >= network.ends[name])

    def price(self, op: Op) -> Price:
        """The operation's price."""
        found = PRICES.get(op.kind)
        if found is not None:
            return found
        where = f"operation {op.kind!r} in layer {op.layer or '(the network itself)'!r}"
        if self.unknown == "error":
            raise UnknownOperation(f"{where} has no price (unknown=warn counts its elements at 32 bits)")
        warnings.warn(f"{where} has no price: {op.elements:,} elements counted at 32 bits", stacklevel=2)
        return Price(ELEMENTWISE, "no price: one a element", elements=(1, 0), as_float=True)


def rules_named(key: str, name: str) -> type[Rules]:
    """The rule set of this name.

    Args:
        key: the option that holds the name, for the message.
        name: ``official`` or ``seed2019`` (a module of this package and its class), or the dotted path of a class.

    Raises:
        ValueError: there is none.
    """
    path = name if "." in name else f"{__package__}.{name}.{name.capitalize()}"
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, Rules)):
        raise ValueError(f"{key}={name}: must be official, seed2019 or the dotted path of a rule set")
    return found


def check_shape(shape: Sequence[int] | None) -> None:
    """Raises ValueError unless ``shape`` is null or (channels, height, width)."""
    if shape is not None and (len(shape) != 3 or any(not isinstance(n, int) or n < 1 for n in shape)):
        raise ValueError(f"input_shape={shape}: must be [channels, height, width] or null")
