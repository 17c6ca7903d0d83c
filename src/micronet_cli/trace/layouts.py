"""How a value lies in memory, and how it is read: plain data."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in its memory: views of one value differ in nothing else.

    Attributes:
        strides: distance of neighbours along each dimension, in elements.
        offset: of the first element.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


UNKNOWN_LAYOUT = Layout((), ())


@dataclass(frozen=True, slots=True)
class Read:
    """A value as something reads it: all of it or a view of it.

    Attributes:
        value: its index.
    """

    value: int
    layout: Layout
