"""Pickles of later protocols in the operations of protocol 2, the only ones that torch's safe unpickler knows.

Nothing is unpickled here: operations are replaced one by one, and what they would call is torch's to judge.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

PROTOCOL = 2
PICKLE = "/data.pkl"  # in the zip that torch.save writes
TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}


def in_protocol_2(file: BinaryIO) -> BinaryIO:
    """A file of ``torch.save`` as it is, or where its pickle is of a later protocol a copy in memory, in protocol 2.

    What is broken, or no zip, stays as it is.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if not _is_later(archive):
                return file
            return _copied(archive)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError):
        return file
    finally:
        file.seek(0)


def _is_later(archive: zipfile.ZipFile) -> bool:
    for name in archive.namelist():
        if name.endswith(PICKLE):
            with archive.open(name) as pickled:
                start = pickled.read(2)
            return start[:1] == pickle.PROTO and start[1] > PROTOCOL
    return False


def _copied(archive: zipfile.ZipFile) -> BinaryIO:
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as written:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(PICKLE):
                content = as_protocol_2(content)
            written.writestr(name, content)
    copy.seek(0)
    return copy


def as_protocol_2(content: bytes) -> bytes:
    """The same pickle with the operations of protocol 2; those that have no such counterpart stay.

    Raises:
        ValueError: it is broken.

    >>> pickle.loads(as_protocol_2(pickle.dumps({"a": ["a", b"b", 1.5]}, protocol=4)))
    {'a': ['a', b'b', 1.5]}
    """
    rewriting = _Rewriting()
    for name, argument, raw in _operations(content):
        rewriting.add(name, argument, raw)
    return b"".join(rewriting.written)


def _operations(content: bytes) -> Iterator[tuple[str, Any, bytes]]:
    """Name, argument and bytes of every operation."""
    operations = list(pickletools.genops(content))
    places = [place for _, _, place in operations]
    ends = [*places[1:], len(content)]
    for (code, argument, place), end in zip(operations, ends, strict=True):
        yield code.name, argument, content[place:end]


class _Rewriting:
    """Operations that were written so far.

    Attributes:
        written: their bytes.
        pushed: the text that each of them pushes, None for others.
        memo: objects that were given a number.
        remembered: number -> text; protocol 2 names functions by text, so a text is written again in its place.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.pushed: list[str | None] = []
        self.memo = 0
        self.remembered: dict[int, str] = {}

    def add(self, name: str, argument: Any, raw: bytes) -> None:
        """Write one operation as protocol 2 has it."""
        if name == "PROTO":
            self._write(pickle.PROTO + bytes([PROTOCOL]))
        elif name in TEXTS:
            self._write_text(argument)
        elif name in BYTES:
            self._write_bytes(argument)
        elif name == "MEMOIZE":
            self._memoize()
        elif name in ("BINGET", "LONG_BINGET") and argument in self.remembered:
            self._write_text(self.remembered[argument])
        elif name == "STACK_GLOBAL":
            self._write_global()
        elif name != "FRAME":
            self._write(raw)

    def _write(self, operation: bytes, text: str | None = None) -> None:
        self.written.append(operation)
        self.pushed.append(text)

    def _write_text(self, text: str) -> None:
        encoded = text.encode("utf-8", "surrogatepass")
        length = struct.pack("<I", len(encoded))
        self._write(pickle.BINUNICODE + length + encoded, text)

    def _write_bytes(self, content: bytes) -> None:
        """As protocol 2 has bytes: text that is encoded."""
        self._write(pickle.GLOBAL + b"_codecs\nencode\n")
        self._write_text(content.decode("latin1"))
        self._write_text("latin1")
        self._write(pickle.TUPLE2 + pickle.REDUCE)

    def _memoize(self) -> None:
        text = self.pushed[-1] if self.pushed else None
        if text is None:
            self._write(pickle.LONG_BINPUT + struct.pack("<I", self.memo))
        else:
            self.remembered[self.memo] = text
        self.memo += 1

    def _write_global(self) -> None:
        """A function or class, named by the two texts before."""
        names = [text for text in self.pushed[-2:] if text is not None]
        if len(names) < 2:
            raise ValueError("a function that is not named by text")
        module, name = names
        del self.written[-2:], self.pushed[-2:]
        self._write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
