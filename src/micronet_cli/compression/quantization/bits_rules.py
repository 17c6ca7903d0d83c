"""What a rule gives the layers that it matches: bits and schemes of their own, or the quantiser's."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from micronet_cli.layers.rules import LayerRule

MAX_BITS = 16
WeightScheme = Callable[..., WeightFakeQuantize]
ActivationScheme = Callable[..., ActivationFakeQuantize]


@dataclass(frozen=True)
class BitsRule(LayerRule):
    """Bits of the matched layers' weights and inputs in [1, 16], maybe fractional.

    ``inherit`` (the default) takes the quantiser's own value, null leaves the tensor in float.

    Attributes:
        weight, activation: schemes of these layers, null: the quantiser's own.
    """

    weight_bits: float | str | None = "inherit"
    activation_bits: float | str | None = "inherit"
    weight: WeightScheme | None = None
    activation: ActivationScheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_bits", "activation_bits"):
            bits = getattr(self, name)
            if bits != "inherit":
                check_bits(name, bits)


@dataclass(frozen=True)
class OutputRule(LayerRule):
    """Bits of the matched modules' outputs: a block that feeds a residual add, what goes into a pool.

    Attributes:
        activation_bits: in [1, 16]; ``inherit`` takes the quantiser's own value, null leaves the output in float.
        activation: scheme, null: the quantiser's own.
    """

    activation_bits: float | str | None = "inherit"
    activation: ActivationScheme | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation_bits != "inherit":
            check_bits("activation_bits", self.activation_bits)


def check_bits(name: str, bits: float | str | None) -> None:
    """Raises ValueError unless ``bits`` is null or a number in [1, 16]."""
    if bits is None:
        return
    if not isinstance(bits, int | float) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"{name}={bits}: must be 1 to {MAX_BITS} bits, or null (float)")


def inherited_bits(bits: float | str | None, default: float | None) -> float | None:
    """A rule's bits, or the quantiser's where the rule says ``inherit``."""
    if isinstance(bits, str):
        return default
    return bits


def first_scheme(*choices: Callable | None) -> Callable:
    """The first that is given; a class stands for an instance with its defaults."""
    given = [choice for choice in choices if choice is not None]
    scheme = given[0]
    if isinstance(scheme, type):
        return scheme()
    return scheme


@dataclass(frozen=True)
class Target:
    """What one layer gets.

    Attributes:
        rule: name of the rule that says so.
        weight_bits, activation_bits: None for float.
        weight, activation: schemes.
    """

    rule: str
    weight_bits: float | None
    activation_bits: float | None
    weight: WeightScheme
    activation: ActivationScheme

    def weight_quantizer(self, weight: Tensor) -> WeightFakeQuantize | None:
        """A quantiser for a layer with this ``weight`` ``[C_out, ...]``, None where it stays in float.

        Raises:
            ValueError: the scheme cannot have so few or so many bits.
        """
        if self.weight_bits is None:
            return None
        return self.weight(self.weight_bits, weight)

    def activation_quantizer(self) -> ActivationFakeQuantize | None:
        """A quantiser for the layer's input, None where it stays in float.

        Raises:
            ValueError: the scheme cannot have so few bits.
        """
        if self.activation_bits is None:
            return None
        return self.activation(self.activation_bits)
