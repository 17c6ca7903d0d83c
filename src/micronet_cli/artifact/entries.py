"""What the header says of each tensor, checked field by field."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

from micronet_cli.artifact.format import Damaged
from micronet_cli.functional.quantization import quant_max

MAX_DIMS = 8
GROUP_SIZES = (2, 4, 8, 16)
OPERAND = "operand"
PLACES = re.compile(rf"input|output|{OPERAND}\d{{1,3}}", re.ASCII)
# What a BatchNorm that stays is stored as: a gain and a shift stand for all four.
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
DTYPES = ("float32", "int64", "bool")
MAX_LEVELS = 1 << 16
MAX_BITS = 16
EXPONENTS = range(-1074, 128)


def check(condition: bool, message: str) -> None:
    """Raises Damaged with ``message`` unless the condition holds."""
    if not condition:
        raise Damaged(f"header: {message}")


def is_count(value: Any, least: int = 0, most: int = 1 << 40) -> bool:
    """Whether a value from JSON is a whole number in a range.

    >>> is_count(3), is_count(True), is_count(3.0), is_count(-1)
    (True, False, False, False)
    """
    return type(value) is int and least <= value <= most


def is_bits(value: Any) -> bool:
    """Whether a value from JSON is a number of bits.

    >>> is_bits(4), is_bits(2.5), is_bits(0.5), is_bits(True)
    (True, True, False, False)
    """
    return type(value) in (int, float) and 1 <= value <= MAX_BITS


def is_names(value: Any) -> bool:
    """Whether a value from JSON is a list of strings.

    >>> is_names(["a", "b"]), is_names([]), is_names("ab"), is_names(["a", 1])
    (True, True, False, False)
    """
    if not isinstance(value, list):
        return False
    return all(isinstance(item, str) for item in value)


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

    Raises:
        Damaged: a field has another type, is out of its range, or contradicts another field.
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
        check(isinstance(self.name, str), f"{where}: the name must be a string")
        for name in ("masked", "zeros", "integer", "per_tensor"):
            value = getattr(self, name)
            check(type(value) is bool, f"{where}: {name} must be true or false")
        check(self._positions_fit(), f"{where}: unknown positions")
        self._check_codes(where)
        self._check_rescale(where)

    def _check_codes(self, where: str) -> None:
        has_bits = self.bits is None or is_bits(self.bits)
        check(has_bits, f"{where}: bits must be a number in [1, {MAX_BITS}]")
        check(is_count(self.levels, 2, MAX_LEVELS), f"{where}: levels must be in 2 to {MAX_LEVELS}")
        if self.bits is not None:
            most_levels = quant_max(self.bits) + 1
            check(self.base <= most_levels, f"{where}: more levels than its bits give")
        if self.zero_code is not None:
            is_code = is_count(self.zero_code, 0, self.levels - 1)
            check(is_code, f"{where}: zero_code beyond the levels")

    def _check_rescale(self, where: str) -> None:
        check(is_count(self.scales), f"{where}: scales must be a count")
        if self.integer:
            has_scale = self.bits is not None and self.scales > 0
            check(has_scale, f"{where}: integers without scale")
        for exponent in (self.scale_exponent, self.bias_exponent):
            if exponent is None:
                continue
            is_exponent = type(exponent) is int and exponent in EXPONENTS
            check(is_exponent, f"{where}: a bad exponent")
        if self.bias_exponent is not None:
            check(self.rescaled, f"{where}: a bias without rescale")

    @property
    def rescaled(self) -> bool:
        """Whether a ``Rescale`` follows the layer."""
        return self.scales > 0 and (self.integer or self.bits is None)

    @property
    def base(self) -> int:
        """Digits of the stored codes: one fewer than levels where 0 is never stored."""
        if self.zeros:
            return self.levels
        return self.levels - 1

    def _positions_fit(self) -> bool:
        if not isinstance(self.positions, list | tuple) or not self.positions:
            return False
        kind, *rest = self.positions
        if kind == "blocks":
            has_sizes = 0 < len(rest) <= MAX_DIMS
            return has_sizes and all(is_count(size, 1, 1 << 31) for size in rest)
        if kind == "groups":
            if len(rest) != 2:
                return False
            n, m = rest
            return m in GROUP_SIZES and is_count(n, 1, m - 1)
        return kind in ("all", "mask") and not rest

    def to_json(self) -> dict[str, Any]:
        """Plain values, those that are the defaults left out."""
        values = asdict(self)
        kept = {}
        for field in fields(self):
            value = values[field.name]
            # By type too: False equals 0, and 2.0 equals 2.
            same_type = type(value) is type(field.default)
            if value != field.default or not same_type:
                kept[field.name] = value
        return kept


@dataclass(frozen=True)
class Activation:
    """A quantiser of activations.

    Attributes:
        module: the module that carries it.
        place: before the module (``input``), behind it (``output``), or at an operand of the products that its forward
            computes: ``operand0`` is the left one of the first, ``operand1`` the right one.
        bits: in [1, 16], maybe fractional.

    Raises:
        Damaged: a field has another type or is out of its range.
    """

    module: str
    place: str
    bits: float

    def __post_init__(self) -> None:
        check(isinstance(self.module, str), "activations: a module's name must be a string")
        where = f"activations: {self.module!r:.80}"
        is_place = isinstance(self.place, str) and PLACES.fullmatch(self.place) is not None
        check(is_place, f"activations: place {self.place!r:.80} must be input, output or {OPERAND}<number>")
        check(is_bits(self.bits), f"{where}: bits must be in [1, {MAX_BITS}]")

    @property
    def operand(self) -> int | None:
        """Number of the operand; None at another place."""
        if not self.place.startswith(OPERAND):
            return None
        return int(self.place.removeprefix(OPERAND))


@dataclass(frozen=True)
class Parameter:
    """A tensor that is stored as it is.

    Attributes:
        name: in the network's state.
        shape: at most 8 sizes.
        dtype: one of ``DTYPES``.

    Raises:
        Damaged: a field has another type or is out of its range.
    """

    name: str
    shape: Sequence[int]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        where = f"parameter {self.name!r:.80}"
        check(isinstance(self.name, str), f"{where}: the name must be a string")
        check(self._is_shape(), f"{where}: not a shape")
        # A size of 0 must not hide sizes beside it that no tensor can have.
        elements = prod(max(size, 1) for size in self.shape)
        check(is_count(elements), f"{where}: too large a shape")
        check(self.dtype in DTYPES, f"{where}: dtype {self.dtype!r:.80} is not known")

    def _is_shape(self) -> bool:
        if not isinstance(self.shape, list | tuple):
            return False
        if len(self.shape) > MAX_DIMS:
            return False
        return all(is_count(size) for size in self.shape)


def parse(kind: Any, rows: Any, what: str) -> list[Any]:
    """Entries of one kind, from JSON objects (or, field by field, lists).

    Raises:
        Damaged: what is wrong with them.
    """
    check(isinstance(rows, list), f"{what}: must be a list")
    found = []
    for row in rows:
        try:
            entry = kind(**row) if isinstance(row, dict) else kind(*row)
        except TypeError:
            raise Damaged(f"header: {what}: an entry has other fields than {kind.__name__}") from None
        found.append(entry)
    names = {_name_of(entry) for entry in found}
    check(len(names) == len(found), f"{what}: a name comes twice")
    return found


def _name_of(entry: Layer | Activation | Parameter) -> Any:
    if isinstance(entry, Activation):
        return entry.module, entry.place
    return entry.name
