"""A graph as a file; what is more than a file of this format holds lies beside it."""

import tempfile
from pathlib import Path

import onnx

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import write_bytes

DATA_SUFFIX = ".data"
# A message of protobuf has less than 2 GB; the nodes take some of it.
MOST_BYTES = 2**31 - 2**24


def is_large(proto: onnx.ModelProto) -> bool:
    """Whether the stored tensors are more than one file holds."""
    stored = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    return stored > MOST_BYTES


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Write a file, and the tensors of a large graph, which loses them, to ``PATH.data`` beside it."""
    onnx.save_model(
        proto,
        path,
        save_as_external_data=is_large(proto),
        location=f"{path.name}{DATA_SUFFIX}",
    )


def write_checked(proto: onnx.ModelProto, path: Path, full_check: bool = True) -> int:
    """Check a graph and write it, each file atomically; their bytes.

    Raises:
        UserError: the graph is not one of ONNX, as torch 2.11's exporter makes of two clamps after each other.
    """
    data = path.with_name(f"{path.name}{DATA_SUFFIX}")
    if not is_large(proto):
        _check(proto, full_check)
        content = proto.SerializeToString()
        write_bytes(path, content)
        data.unlink(missing_ok=True)  # of a larger network before
        return len(content)

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        whole = Path(directory) / path.name
        save(proto, whole)
        _check(str(whole), full_check)
        # The tensors first: a graph never stands without them.
        whole.with_name(data.name).replace(data)
        whole.replace(path)
    return path.stat().st_size + data.stat().st_size


def _check(proto_or_path: onnx.ModelProto | str, full_check: bool) -> None:
    try:
        onnx.checker.check_model(proto_or_path, full_check=full_check)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"ONNX: torch's exporter wrote a graph that is not valid ({reason})") from None
