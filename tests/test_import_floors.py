"""The architecture as a test: who may import whom."""

import ast
from pathlib import Path

import pytest

import micronet_cli

ROOT = Path(micronet_cli.__file__).parent
# room -> rooms it may import from (besides itself)
ALLOWED = {
    "allocator": set(),
    "functional": set(),
    "errors": set(),
    "distributed": {"errors"},
    "paths": set(),
    "tables": set(),
    "loggers": {"errors"},
    "runs": {"loggers"},
    "overrides": {"errors", "paths"},
    "search": {"errors"},
    "outcomes": {"errors", "runs", "tables"},
    "sweeps": {"errors", "outcomes", "runs"},
    "search_path": {"errors"},
    "config": {"errors"},
    "compression": {"distributed", "functional", "errors"},
    "models": {"errors"},
    "data": {"distributed", "errors", "models"},
    "checkpoint": {"artifact", "config", "errors", "models", "runs"},
    "training": {"allocator", "checkpoint", "data", "distributed", "errors", "functional", "models", "runs"},
    "scoring": {"compression", "errors", "functional", "tables"},
    "artifact": {"checkpoint", "compression", "errors", "functional", "models", "runs"},
    "explore": {"compression", "distributed", "errors", "functional", "scoring"},
    "stages": {
        "artifact", "checkpoint", "compression", "config", "data", "distributed", "errors", "explore", "models",
        "outcomes", "overrides", "paths", "runs", "scoring", "search", "tables", "training",
    },
    "cli": {"allocator", "errors", "outcomes", "overrides", "paths", "search_path", "stages", "sweeps"},
    "__init__": {"checkpoint"},
}  # fmt: skip
SEES_CFG = {"cli", "config", "overrides", "search_path", "stages", "sweeps"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        yield relative, relative.parts[0].removesuffix(".py"), ast.parse(path.read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.module == "micronet_cli":
                yield from (f"micronet_cli.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_room_is_on_the_plan():
    assert {room for _, room, _ in modules()} == set(ALLOWED)


@pytest.mark.parametrize(("path", "room", "tree"), [pytest.param(*m, id=str(m[0])) for m in modules()])
def test_imports_stay_on_their_floor(path, room, tree):
    own = [name.split(".")[1] for name in imported(tree) if name.startswith("micronet_cli.")]
    assert set(own) - {room} <= ALLOWED[room]
    if room not in SEES_CFG:
        assert not [name for name in imported(tree) if name.split(".")[0] in ("hydra", "omegaconf")]
