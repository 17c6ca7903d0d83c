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
STREAMS = ("activations", "codes", "header", "masks", "offsets", "parameters", "scales", "sha256")
DIGEST_BYTES = 32
# Streams that the entropy coder may take: the others are noise to it.
CODED = ("codes", "masks", "offsets")
MAX_EXPANSION = 64  # raw bytes of a compressed stream over the file's
BLOCK_BYTES = 1 << 14


class Damaged(ValueError):
    """The content is not what a writer makes."""


def write(header: Mapping[str, Any], streams: Mapping[str, Sequence[bytes]], entropy: bool) -> bytes:
    """The content of a file.

    Args:
        header: plain values; ``format_version`` and ``coded`` are added.
        streams: stream -> its parts, one a layer.
        entropy: entropy-code the streams of ``CODED``.
    """
    raw = {name: b"".join(streams[name]) for name in STREAMS if name not in ("header", "sha256")}
    coded = {name: len(raw[name]) for name in CODED if entropy}
    content = raw | {name: deflate(streams[name]) for name in coded}
    full = {"format_version": FORMAT_VERSION, "coded": coded} | dict(header)
    content["header"] = zlib.compress(json.dumps(full, separators=(",", ":"), allow_nan=False).encode(), 9)
    content["sha256"] = bytes(DIGEST_BYTES)
    tensors = {name: np.frombuffer(content[name], np.uint8) for name in STREAMS}
    unsealed = save(tensors, {"format": "mnet"})[:-DIGEST_BYTES]
    return unsealed + hashlib.sha256(unsealed).digest()


def read(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Header and raw streams of a file's content.

    Raises:
        Damaged: truncated, changed, of a newer format, or not such a file.
    """
    if len(content) < 2 * DIGEST_BYTES or hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
        raise Damaged("truncated or damaged (its checksum does not fit), or not a packed network")
    try:
        found = deserialize(content)
    except SafetensorError as error:
        raise Damaged(f"not a packed network ({error})") from None
    tensors = {name: info for name, info in found if info["dtype"] == "U8" and len(info["shape"]) == 1}
    if set(tensors) != set(STREAMS) or len(found) != len(STREAMS):
        raise Damaged("not a packed network: other streams than " + ", ".join(STREAMS))
    streams = {name: bytes(info["data"]) for name, info in tensors.items()}
    header = read_json(inflate(streams.pop("header"), None, MAX_EXPANSION * len(content)))
    del streams["sha256"]
    coded = header.get("coded")
    if not isinstance(coded, dict) or not set(coded) <= set(CODED):
        raise Damaged(f"header: coded={coded!r:.80}: sizes of {', '.join(CODED)} are wanted")
    for name, size in coded.items():
        if type(size) is not int or not 0 <= size <= MAX_EXPANSION * len(content):
            raise Damaged(f"header: coded.{name}={size!r:.80}: not a size that this file can hold")
        streams[name] = inflate(streams[name], size, size)
    return header, streams


def sizes(content: bytes) -> dict[str, int]:
    """Stream -> its bytes in the file, of a file that ``read`` accepts; ``container`` is what lies around them."""
    found = {name: math.prod(info["shape"]) for name, info in deserialize(content)}
    return {"container": len(content) - sum(found.values())} | {name: found[name] for name in STREAMS}


def read_json(text: bytes) -> dict[str, Any]:
    """The header's JSON, its version checked.

    Raises:
        Damaged: no JSON object, or of another version.
    """
    try:
        header = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"header: not JSON ({str(error)[:80]})") from None
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise Damaged("header: no format_version")
    if version > FORMAT_VERSION:
        raise Damaged(f"format {version} is newer than this program's {FORMAT_VERSION}")
    return header


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def deflate(parts: Sequence[bytes]) -> bytes:
    """Huffman codes of the parts' bytes as one deflate stream (RFC 1951), with tables of their own for large parts."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    out, pending = [], 0
    for part in parts:
        if pending and pending + len(part) > BLOCK_BYTES:
            out.append(coder.flush(zlib.Z_BLOCK))
            pending = 0
        out.append(coder.compress(part))
        pending += len(part)
    return b"".join([*out, coder.flush()])


def inflate(content: bytes, size: int | None, limit: int) -> bytes:
    """What was compressed: at most ``limit`` bytes, exactly ``size`` where it is known; None: the zlib format.

    Raises:
        Damaged: anything else.
    """
    coder = zlib.decompressobj(zlib.MAX_WBITS if size is None else -zlib.MAX_WBITS)
    try:
        out = coder.decompress(content, limit + 1)
    except zlib.error as error:
        raise Damaged(f"a stream does not decompress ({error})") from None
    if not coder.eof or coder.unused_data or len(out) > limit or size not in (None, len(out)):
        raise Damaged("a stream does not have the size that the header gives")
    return out


class Cursor:
    """Reads a stream from its beginning to its end."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self._content, self._at = name, memoryview(content), 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            Damaged: fewer are left.
        """
        if size > len(self._content) - self._at:
            raise Damaged(f"stream {self.name} ends too early")
        self._at += size
        return bytes(self._content[self._at - size : self._at])

    def close(self) -> None:
        """Raises Damaged where something is left over."""
        if self._at != len(self._content):
            raise Damaged(f"stream {self.name} is {len(self._content) - self._at} bytes too long")
