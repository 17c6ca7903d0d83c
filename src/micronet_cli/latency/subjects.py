"""What is measured: a network in an engine, as the live network or as a file."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.artifact.onnx_file import DATA_SUFFIX
from micronet_cli.layers.copies import copied
from micronet_cli.layers.plain_weights import give_plain_weights
from micronet_cli.network import Network

DENSE = "dense"
COMPRESSED = "compressed"
INT8_SUFFIX = ".int8.onnx"


@dataclass(frozen=True)
class Subject:
    """A network in an engine.

    Attributes:
        network: ``dense``, the architecture in float with all its channels, or ``compressed``.
        engine: that runs it.
        source: what the engine opens, the live network or a file.
        file_bytes: of the file; of a live network what its weights take as a file.
    """

    network: str
    engine: Engine
    source: nn.Module | Path
    file_bytes: int

    @property
    def file(self) -> str:
        """The file's name; empty for a live network."""
        return self.source.name if isinstance(self.source, Path) else ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells subjects apart."""
        return self.network, self.file, self.engine.name

    def __str__(self) -> str:
        what = self.file or f"the {self.network} network"
        return f"{what} in {self.engine.name}"


def subjects(network: str, live: nn.Module | None, files: Iterable[Path], engines: Sequence[Engine]) -> list[Subject]:
    """A network in every engine that can open it, live or as one of its files."""
    found = []
    for engine in engines:
        if not engine.suffixes and live is not None:
            found.append(Subject(network, engine, live, weights_bytes(live)))
        for file in files:
            if file.suffix in engine.suffixes:
                found.append(Subject(network, engine, file, bytes_of(file)))
    return found


def write_onnx(network: Network, directory: Path, name: str) -> Path:
    """``NAME.onnx`` of a network.

    Raises:
        UserError: torch's exporter cannot follow the network.
        ImportError: the extra ``export`` is not installed.
    """
    from micronet_cli.artifact.onnx import export_onnx

    path = directory / f"{name}.onnx"
    export_onnx(network, path)
    return path


def write_int8(network: Network, directory: Path, name: str, images: Tensor) -> Path:
    """``NAME.int8.onnx``, with ranges from the images ``[N, C, H, W]``; errors as ``write_onnx``."""
    from micronet_cli.artifact.onnx_int8 import export_int8

    path = directory / f"{name}{INT8_SUFFIX}"
    export_int8(network, path, images)
    return path


def bytes_of(file: Path) -> int:
    """A file's bytes, with those of the tensors that lie beside it."""
    parts = [file, file.with_name(f"{file.name}{DATA_SUFFIX}"), file.with_suffix(".bin")]
    return sum(part.stat().st_size for part in parts if part.is_file())


def weights_bytes(model: nn.Module) -> int:
    """What PyTorch writes of a network with plain weights."""
    plain: Any = copied(model)
    give_plain_weights(plain)
    content = io.BytesIO()
    torch.save(plain.state_dict(), content)
    return content.getbuffer().nbytes


def onnx_shape(path: Path) -> tuple[tuple[int, int, int], int]:
    """``(C, H, W)`` of a file's images, and its number of classes, 0 where it does not say.

    Raises:
        ValueError: the file does not say how large its images are, or is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        raise ValueError("damaged, or not an ONNX file") from None
    initializers = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in initializers]
    if len(given) != 1 or not graph.output:
        raise ValueError(f"has {len(given)} inputs; must have one, images [N, C, H, W]")
    dims = [dim.dim_value for dim in given[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or not all(dims[1:]):
        raise ValueError(f"its input has the dimensions {dims}; must be images [N, C, H, W] of a size that it states")
    answer = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    classes = answer[-1] if len(answer) == 2 else 0
    return (dims[1], dims[2], dims[3]), classes
