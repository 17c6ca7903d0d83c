"""The streams of a packed file as they grow, one layer after another."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from micronet_cli.artifact.entries import Layer
from micronet_cli.artifact.format import STREAMS
from micronet_cli.artifact.smallest_positions import smallest_positions
from micronet_cli.artifact.stored_weights import Positions, code_digits, covered, pack_positions
from micronet_cli.functional.fixed_point import to_fixed
from micronet_cli.functional.packing import pack_digits, radix_word

# Largest over smallest scale up to which int32 with one exponent takes the place of float32: its error is 2^-32 of the
# largest, which is what a quantiser behind all channels sees, and the smallest channel still has 16 bits.
SCALE_SPREAD = 1 << 16
FLOAT_BITS = 32


def _empty_streams() -> dict[str, list[bytes]]:
    return {name: [] for name in STREAMS}


@dataclass
class Packer:
    """Entries and streams as they grow.

    Attributes:
        entropy: the streams will be entropy-coded, so that digits are packed into whole bytes.
        plain: every weight takes a mask, never the form that makes it smallest.
        layers: entries of the header so far.
        streams: stream -> its parts so far, one a layer.
    """

    entropy: bool
    plain: bool = False
    layers: list[Layer] = field(default_factory=list)
    streams: dict[str, list[bytes]] = field(default_factory=_empty_streams)

    def codes(self, entry: Layer, integers: np.ndarray, zero_codes: np.ndarray) -> Layer:
        """Store integer weights, ``[C_out, ...]``, and the code of 0 of each channel; the completed entry."""
        nonzero = integers != 0
        positions, cover = self._positions(
            nonzero,
            value_bits=_digit_bits(entry.levels),
            fewer_bits=_digit_bits(entry.levels - 1),
        )
        stored = integers[cover]
        stores_zeros = bool((stored == 0).any())
        entry = replace(entry, positions=positions, zeros=stores_zeros)
        digits = code_digits(integers, entry, cover)
        self._append_digits("codes", digits, entry.base)
        if entry.zero_code is None:
            self._append_digits("offsets", zero_codes, entry.levels)
        return entry

    def floats(self, entry: Layer, weight: np.ndarray) -> Layer:
        """Store a float weight's non-zeros; the completed entry."""
        nonzero = weight != 0
        positions, cover = self._positions(nonzero, FLOAT_BITS, FLOAT_BITS)
        values = weight[cover]
        self.append("parameters", values, "<f4")
        return replace(entry, positions=positions)

    def numbers(self, scale: np.ndarray | None, bias: np.ndarray | None) -> dict[str, Any]:
        """Store what a layer is rescaled by, ``[C_out]`` or ``[1]`` each; fields of its entry."""
        fields: dict[str, Any] = {}
        if scale is not None:
            fields["scales"] = scale.size
            if _has_one_exponent(scale):
                fields["scale_exponent"] = self._fixed_point(scale)
            else:
                self.append("scales", scale, "<f4")
        if bias is not None:
            fields["bias_exponent"] = self._fixed_point(bias)
        return fields

    def append(self, stream: str, values: np.ndarray, dtype: str) -> None:
        """Store numbers as they are, in a little-endian type."""
        content = values.astype(dtype).tobytes()
        self.streams[stream].append(content)

    def _append_digits(self, stream: str, digits: np.ndarray, base: int) -> None:
        content = pack_digits(digits, base, self.entropy)
        self.streams[stream].append(content)

    def _fixed_point(self, values: np.ndarray) -> int:
        """Store numbers as int32; their exponent."""
        stored, exponent = to_fixed(values)
        self.append("scales", stored, "<i4")
        return exponent

    def _positions(self, nonzero: np.ndarray, value_bits: float, fewer_bits: float) -> tuple[Positions, np.ndarray]:
        """Where the non-zeros are, in the smallest form; its bytes go to the stream."""
        positions: Positions = ("mask",)
        if not self.plain:
            positions = smallest_positions(nonzero, value_bits, fewer_bits)
        cover = covered(positions, nonzero)
        content = pack_positions(positions, cover, self.entropy)
        self.streams["masks"].append(content)
        return positions, cover


def _digit_bits(base: int) -> float:
    digits, word_bits = radix_word(base)
    return word_bits / digits


def _has_one_exponent(scale: np.ndarray) -> bool:
    """Whether int32 with one exponent is exact enough for all these scales."""
    used = scale[scale != 0]
    if used.size == 0:
        return True
    magnitudes = np.abs(used)
    largest = magnitudes.max()
    spread_limit = SCALE_SPREAD * magnitudes.min()
    return bool(largest <= spread_limit)
