"""The container of a ``.mnet`` file: a safetensors file of byte streams, sealed by a digest. See docs/format.md.

Whatever a file holds, reading ends with streams of plausible sizes or with ``Damaged``; nothing in it is executed.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

FORMAT_VERSION = 1
# In the order of the file: the digest comes last and covers every byte before it.
STREAMS = (
    "activations",
    "codes",
    "header",
    "masks",
    "offsets",
    "parameters",
    "scales",
    "sha256",
)
DIGEST_BYTES = 32
# Streams that the entropy coder may take: the others are noise to it.
CODED = ("codes", "masks", "offsets")
MAX_EXPANSION = 64  # raw bytes of a compressed stream over the file's
BLOCK_BYTES = 1 << 14
Parts = Mapping[str, Sequence[bytes]]  # stream -> its parts


class Damaged(ValueError):
    """The content is not what a writer makes."""


def write(header: Mapping[str, Any], streams: Parts, entropy: bool) -> bytes:
    """The content of a file.

    Args:
        header: plain values; ``format_version`` and ``coded`` are added.
        streams: stream -> its parts, one a layer.
        entropy: entropy-code the streams of ``CODED``.
    """
    content: dict[str, bytes] = {}
    coded: dict[str, int] = {}
    for name in STREAMS:
        if name in ("header", "sha256"):
            continue
        content[name] = b"".join(streams[name])
        if entropy and name in CODED:
            coded[name] = len(content[name])
            content[name] = deflate(streams[name])

    own_fields = {"format_version": FORMAT_VERSION, "coded": coded}
    full_header = own_fields | dict(header)
    text = json.dumps(full_header, separators=(",", ":"), allow_nan=False)
    content["header"] = zlib.compress(text.encode(), 9)

    # safetensors writes the streams in alphabetical order, so the digest's place is the end of the file.
    content["sha256"] = bytes(DIGEST_BYTES)
    tensors: dict[str, np.ndarray] = {}
    for name in STREAMS:
        tensors[name] = np.frombuffer(content[name], np.uint8)
    file = save(tensors, {"format": "mnet"})
    sealed = file[:-DIGEST_BYTES]
    return sealed + _digest(sealed)


def read(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and raw streams of a file's content.

    Raises:
        Damaged: truncated, changed, of a newer format, or not such a file.
    """
    too_short = len(content) < 2 * DIGEST_BYTES
    if too_short or not _digest_fits(content):
        raise Damaged("truncated or damaged (its checksum does not fit), or not a packed network")
    try:
        tensors = deserialize(content)
    except SafetensorError as error:
        raise Damaged(f"not a packed network ({error})") from None
    streams: dict[str, bytes] = {}
    for name, tensor in tensors:
        of_bytes = tensor["dtype"] == "U8"
        if of_bytes and len(tensor["shape"]) == 1:
            streams[name] = bytes(tensor["data"])
    others_too = len(tensors) != len(STREAMS)
    if set(streams) != set(STREAMS) or others_too:
        expected = ", ".join(STREAMS)
        raise Damaged(f"not a packed network: its streams are not {expected}")

    # No stream may expand beyond what a file of this size plausibly holds.
    most_bytes = MAX_EXPANSION * len(content)
    text = inflate(streams.pop("header"), None, most_bytes)
    header = read_json(text)
    del streams["sha256"]
    coded = header.get("coded")
    if not isinstance(coded, dict) or not set(coded) <= set(CODED):
        may_be = ", ".join(CODED)
        raise Damaged(f"header: coded={coded!r:.80}: must be sizes of {may_be}")
    for name, size in coded.items():
        is_size = type(size) is int and 0 <= size <= most_bytes
        if not is_size:
            raise Damaged(f"header: coded.{name}={size!r:.80}: not a size that this file can hold")
        streams[name] = inflate(streams[name], size, size)
    return header, streams


def _digest(sealed: bytes) -> bytes:
    return hashlib.sha256(sealed).digest()


def _digest_fits(content: bytes) -> bool:
    sealed = content[:-DIGEST_BYTES]
    return _digest(sealed) == content[-DIGEST_BYTES:]


def sizes(content: bytes) -> dict[str, int]:
    """Stream -> its bytes in the file, of a file that ``read`` accepts; ``container`` is what lies around them."""
    streams: dict[str, int] = {}
    for name, tensor in deserialize(content):
        streams[name] = math.prod(tensor["shape"])
    in_streams = sum(streams.values())
    found = {"container": len(content) - in_streams}
    for name in STREAMS:
        found[name] = streams[name]
    return found


def read_json(text: bytes) -> dict[str, Any]:
    """The header's JSON, its version checked.

    Raises:
        Damaged: not a JSON object, or of another version.
    """
    try:
        header = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:80]
        raise Damaged(f"header: not JSON ({reason})") from None
    version = None
    if isinstance(header, dict):
        version = header.get("format_version")
    if type(version) is not int or version < 1:
        raise Damaged("header: no format_version")
    if version > FORMAT_VERSION:
        raise Damaged(f"format {version} is newer than this program's {FORMAT_VERSION}")
    return header


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def deflate(parts: Sequence[bytes]) -> bytes:
    """Huffman codes of the parts' bytes as one deflate stream (RFC 1951), with tables of their own for large parts."""
    coder = zlib.compressobj(
        level=9,
        method=zlib.DEFLATED,
        wbits=-zlib.MAX_WBITS,
        memLevel=9,
        strategy=zlib.Z_HUFFMAN_ONLY,
    )
    out: list[bytes] = []
    pending_bytes = 0
    for part in parts:
        if pending_bytes and pending_bytes + len(part) > BLOCK_BYTES:
            out.append(coder.flush(zlib.Z_BLOCK))
            pending_bytes = 0
        out.append(coder.compress(part))
        pending_bytes += len(part)
    out.append(coder.flush())
    return b"".join(out)


def inflate(content: bytes, size: int | None, limit: int) -> bytes:
    """Decompress a stream.

    Args:
        content: a raw deflate stream, or one in the zlib format where ``size`` is None.
        size: bytes that must come out; None: any number up to ``limit``.
        limit: the most bytes that may come out.

    Raises:
        Damaged: not such a stream, cut off or followed by something, or of another size.
    """
    window = -zlib.MAX_WBITS  # negative: no header of zlib
    if size is None:
        window = zlib.MAX_WBITS
    coder = zlib.decompressobj(window)
    try:
        # One byte more than allowed, so that a bomb shows itself without being unpacked.
        out = coder.decompress(content, limit + 1)
    except zlib.error as error:
        raise Damaged(f"a stream does not decompress ({error})") from None
    complete = coder.eof and not coder.unused_data
    wrong_size = size is not None and len(out) != size
    if not complete or wrong_size or len(out) > limit:
        raise Damaged("a stream does not have the size that the header gives")
    return out


class Cursor:
    """Reads a stream from its beginning to its end."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = memoryview(content)
        self._at = 0

    @property
    def _left(self) -> int:
        return len(self._content) - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            Damaged: fewer are left.
        """
        if size > self._left:
            raise Damaged(f"stream {self.name} ends too early")
        start = self._at
        self._at += size
        return bytes(self._content[start : self._at])

    def close(self) -> None:
        """Check that the stream was read to its end.

        Raises:
            Damaged: something is left over.
        """
        if self._left:
            raise Damaged(f"stream {self.name} is {self._left} bytes too long")
