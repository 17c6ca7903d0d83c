"""The streams of a packed file as its reader goes through them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from micronet_cli.artifact.format import Cursor
from micronet_cli.functional.packing import packed_bytes, unpack_digits


@dataclass
class Streams:
    """The streams of a file, each read from its beginning to its end.

    Attributes:
        cursors: stream -> how far it is read.
        coded: the entropy-coded streams, whose digits fill whole bytes.
    """

    cursors: dict[str, Cursor]
    coded: Mapping[str, int]

    @classmethod
    def of(cls, raw: Mapping[str, bytes], coded: Mapping[str, int]) -> "Streams":
        """Every stream at its beginning."""
        cursors: dict[str, Cursor] = {}
        for name, content in raw.items():
            cursors[name] = Cursor(name, content)
        return cls(cursors, coded)

    def __getitem__(self, name: str) -> Cursor:
        return self.cursors[name]

    def digits(self, name: str, count: int, base: int) -> np.ndarray:
        """The next digits of a stream, int64 ``[count]``.

        Raises:
            Damaged: fewer are left.
            ValueError: bits that no digits give.
        """
        whole_bytes = name in self.coded
        size = packed_bytes(count, base, whole_bytes)
        content = self[name].take(size)
        return unpack_digits(content, count, base, whole_bytes)

    def array(self, name: str, count: int, dtype: str) -> Tensor:
        """The next numbers of a stream, ``[count]``.

        Raises:
            Damaged: fewer are left.
        """
        size = count * np.dtype(dtype).itemsize
        content = self[name].take(size)
        read_only = np.frombuffer(content, dtype)
        return torch.from_numpy(read_only.copy())

    def close(self) -> None:
        """Check that every stream was read to its end.

        Raises:
            Damaged: something is left over.
        """
        for cursor in self.cursors.values():
            cursor.close()
