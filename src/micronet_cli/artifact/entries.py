"""What the header says of each tensor, checked field by field."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from micronet_cli.artifact.format import Damaged
from micronet_cli.functional.quantization import quant_max

MAX_DIMS = 8
GROUP_SIZES = (2, 4, 8, 16)
PLACES = ("input", "output")
DTYPES = ("float32", "int64", "bool")
MAX_LEVELS = 1 << 16
MAX_BITS = 16
EXPONENTS = range(-1074, 128)


def check(condition: bool, message: str) -> None:
    """Raises Damaged with ``message`` unless the condition holds."""
    if not condition:
        raise Damaged(f"header: {message}")


def is_count(value: Any, least: int = 0, most: int = 1 << 40) -> bool:
    """Whether a value from JSON is a whole number in a range."""
    return type(value) is int and least <= value <= most


def is_bits(value: Any) -> bool:
    """Whether a value from JSON is a number of bits."""
    return type(value) in (int, float) and 1 <= value <= MAX_BITS


@dataclass(frozen=True)
class Layer:
    """How a layer's weight, scales and bias are stored.

    Attributes:
        name: of the module.
        positions: where non-zeros may be: ``["all"]``, ``["mask"]``, ``["blocks", sizes over all dimensions]`` or
            ``["groups", n, m]``.
        masked: its zeros are a mask's.
        bits: of the weight's quantiser, maybe fractional; None: a float weight, whose values are in ``parameters``.
        levels: L of the codes 0 .. L - 1.
        zeros: 0 may be among the stored codes.
        integer: it computes with integers and is rescaled; else with their real values.
        per_tensor: the quantiser has one scale for the tensor.
        zero_code: code of 0 in all channels; None: stored for each range in ``offsets``.
        scales: how many are stored: 0, 1 or one a channel.
        scale_exponent: they are int32 times 2^exponent; None: float32.
        bias_exponent: a bias is stored as int32 times 2^exponent; None: none is.
    """

    name: str
    positions: Sequence[Any] = ("all",)
    masked: bool = False
    bits: float | None = None
    levels: int = 2
    zeros: bool = False
    integer: bool = False
    per_tensor: bool = False
    zero_code: int | None = None
    scales: int = 0
    scale_exponent: int | None = None
    bias_exponent: int | None = None

    def __post_init__(self) -> None:
        where = f"layer {self.name!r:.80}"
        check(isinstance(self.name, str), f"{where}: a name is wanted")
        for name in ("masked", "zeros", "integer", "per_tensor"):
            check(type(getattr(self, name)) is bool, f"{where}: {name}: true or false is wanted")
        check(isinstance(self.positions, list | tuple) and self._positions_fit(), f"{where}: unknown positions")
        check(self.bits is None or is_bits(self.bits), f"{where}: bits: a number in [1, {MAX_BITS}] is wanted")
        check(is_count(self.levels, 2, MAX_LEVELS), f"{where}: levels: 2 to {MAX_LEVELS} are wanted")
        check(self.bits is None or self.base <= quant_max(self.bits) + 1, f"{where}: more levels than its bits give")
        zero_code = self.zero_code
        check(zero_code is None or is_count(zero_code, 0, self.levels - 1), f"{where}: zero_code beyond the levels")
        check(is_count(self.scales), f"{where}: scales: a count is wanted")
        check(not self.integer or (self.bits is not None and self.scales > 0), f"{where}: integers without scale")
        for exponent in (self.scale_exponent, self.bias_exponent):
            check(exponent is None or (type(exponent) is int and exponent in EXPONENTS), f"{where}: a bad exponent")
        check(self.rescaled or self.bias_exponent is None, f"{where}: a bias without rescale")

    @property
    def rescaled(self) -> bool:
        """Whether a ``Rescale`` follows the layer."""
        return self.scales > 0 and (self.integer or self.bits is None)

    @property
    def base(self) -> int:
        """Digits of the stored codes."""
        return self.levels - (not self.zeros)

    def _positions_fit(self) -> bool:
        kind, *rest = self.positions or [None]
        if kind == "blocks":
            return 0 < len(rest) <= MAX_DIMS and all(is_count(size, 1, 1 << 31) for size in rest)
        if kind == "groups":
            return len(rest) == 2 and rest[1] in GROUP_SIZES and is_count(rest[0], 1, rest[1] - 1)
        return kind in ("all", "mask") and not rest

    def to_json(self) -> dict[str, Any]:
        """Plain values, those that are the defaults left out."""
        defaults = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in asdict(self).items() if v != defaults[k] or type(v) is not type(defaults[k])}


@dataclass(frozen=True)
class Activation:
    """A quantiser of activations: the module that carries it, before (``input``) or behind it (``output``)."""

    module: str
    place: str
    bits: float

    def __post_init__(self) -> None:
        check(isinstance(self.module, str), "activations: a module's name is wanted")
        check(self.place in PLACES, f"activations: place {self.place!r:.80}: {' or '.join(PLACES)} is wanted")
        check(is_bits(self.bits), f"activations: {self.module!r:.80}: bits in [1, {MAX_BITS}] are wanted")


@dataclass(frozen=True)
class Parameter:
    """A tensor that is stored as it is."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        where = f"parameter {self.name!r:.80}"
        check(isinstance(self.name, str), f"{where}: a name is wanted")
        check(isinstance(self.shape, list | tuple) and len(self.shape) <= MAX_DIMS, f"{where}: a shape is wanted")
        check(all(is_count(size) for size in self.shape), f"{where}: a shape is wanted")
        check(is_count(prod(max(size, 1) for size in self.shape)), f"{where}: too large a shape")
        check(self.dtype in DTYPES, f"{where}: dtype {self.dtype!r:.80} is not known")


def parse(kind: Any, rows: Any, what: str) -> list[Any]:
    """Entries of one kind, from JSON objects (or, field by field, lists).

    Raises:
        Damaged: what is wrong with them.
    """
    check(isinstance(rows, list), f"{what}: a list is wanted")
    found = []
    for row in rows:
        try:
            found.append(kind(**row) if isinstance(row, dict) else kind(*row))
        except TypeError:
            raise Damaged(f"header: {what}: an entry has other fields than {kind.__name__}") from None
    names = [(entry.module, entry.place) if kind is Activation else entry.name for entry in found]
    check(len(set(names)) == len(names), f"{what}: a name comes twice")
    return found
