"""Checkpoints that describe themselves.

Model config, compressor configs, input, classes and metrics are in the header of a safetensors file. Loading builds the
network, replays ``attach`` in order and loads strictly.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from micronet_cli.artifact import runtime
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.models.weights_file import load_strict, read_weights
from micronet_cli.network import Network, describe
from micronet_cli.renamed import with_new_names
from micronet_cli.runs.directory import Run, write_bytes

FORMAT_VERSION = 1


def save(path: Path, network: Network, metrics: dict[str, Any]) -> None:
    """Write a checkpoint atomically; of a packed network, the packed file."""
    if network.packed is not None:
        write_bytes(path, network.packed.read_bytes())
        return
    header = {"format_version": FORMAT_VERSION, "compressors": network.compressors} | describe(network, metrics)
    # Clones: safetensors refuses tensors that share memory or are not contiguous.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.model.state_dict().items()}
    write_bytes(path, serialize(state, metadata={"micronet": json.dumps(header)}))


def resolve(path: str, where: str = "init_from") -> Path:
    """The checkpoint file behind a run directory (its best, else its packed network) or a file.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser()
    file = given
    if given.is_dir():
        run = Run(given, resume=True, writes=False)
        file = run.packed if run.packed.is_file() and not run.best.is_file() else run.best
    if not file.is_file():
        what = "no such file or directory"
        if given.is_dir():
            what = "no checkpoints/best.safetensors in it; finish the run with resume=true, or name one job's directory"
        raise UserError(f"{where}={path!r}: {what}")
    return file


def read_header(file: Path, where: str = "init_from") -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        UserError: truncated, not one of ours, or of a newer format.
    """
    if file.suffix == runtime.SUFFIX:
        return runtime.read_header(file, where)
    try:
        with safe_open(file, "pt") as opened:
            header = json.loads((opened.metadata() or {})["micronet"])
    except KeyError:
        raise UserError(f"{where}={str(file)!r}: plain weights, not a checkpoint; give model.weights=<file>") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where}={str(file)!r}: truncated, or not a micronet checkpoint ({reason})") from None
    if header["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{where}={str(file)!r}: format {header['format_version']} is newer than this program's {FORMAT_VERSION}"
        )
    return with_new_names(header)


def load(path: str, where: str = "init_from", config: dict[str, Any] | None = None) -> Network:
    """The network of a run directory, checkpoint or packed file, in evaluation mode.

    ``config`` takes the place of its model config.

    Raises:
        UserError: what ``resolve``, ``read_header`` and ``load_strict`` say.
    """
    file = resolve(path, where)
    if file.suffix == runtime.SUFFIX:
        return _load_packed(file, where, config)
    header = read_header(file, where)
    config = (config or header["model"]) | {"weights": None, "pretrained": False}
    spec: Model = build(config, "model")
    model = replace(spec, num_classes=len(header["classes"])).build()
    for number, compressor in enumerate(header["compressors"]):
        try:
            build(compressor, f"{where}: compressor {number}").attach(model)
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{where}={path!r}: its compressors do not fit model={config['name']} ({first})") from None
    load_strict(model, read_weights(file, where), f"{where}={str(file)!r}")
    return Network(
        model=model.eval(),
        config=config,
        classes=header["classes"],
        spec=InputSpec.from_dict(header["input"]),
        compressors=header["compressors"],
        data=header["data"],
        metrics=header["metrics"],
    )


def _load_packed(file: Path, where: str, config: dict[str, Any] | None) -> Network:
    plain = {"weights": None, "pretrained": False}
    model, header = runtime.load(file, where, None if config is None else config | plain)
    return Network(
        model=model,
        config=(config or header["model"]) | plain,
        classes=header["classes"],
        spec=InputSpec.from_dict(header["input"]),
        data=header["data"],
        metrics=header["metrics"],
        packed=file,
    )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a resumed run needs, atomically: tensors and plain values only."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"resume=true: {str(path)!r} is damaged ({str(error).splitlines()[0]}); move it away") from None
