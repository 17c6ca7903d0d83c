"""The engines that micronet knows, and which of them a user means."""

from collections.abc import Sequence

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.artifact.engines.onnxruntime import OnnxRuntime
from micronet_cli.artifact.engines.openvino import OpenVino
from micronet_cli.artifact.engines.pytorch import PyTorch
from micronet_cli.errors import UserError, near_misses

ALL: tuple[Engine, ...] = (PyTorch(), PyTorch(compiles=True), OnnxRuntime(), OpenVino())
ENGINES = {engine.name: engine for engine in ALL}


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError where a name is none of an engine."""
    for name in names:
        if name not in ENGINES:
            known = ", ".join(ENGINES)
            raise ValueError(f"engines={name}: no engine; there are {known}{near_misses(name, ENGINES)}")


def installed_engines(names: Sequence[str] | None = None, where: str = "latency.engines") -> list[Engine]:
    """The engines of these names; without names all that are installed.

    Raises:
        UserError: one that is named is not installed.
    """
    if names is None:
        return [engine for engine in ALL if engine.installed()]
    found = []
    for name in names:
        engine = ENGINES[name]
        if not engine.installed():
            raise UserError(f"{where}={name}: not installed; {_way_out(engine)}")
        found.append(engine)
    return found


def _way_out(engine: Engine) -> str:
    if engine.extra:
        return f"install the extra `{engine.extra}` (pip install 'micronet-cli[{engine.extra}]')"
    return "torch.compile needs a C++ compiler, as g++"
