"""The architecture as a test: who may import whom."""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

import micronet_cli

ROOT = Path(micronet_cli.__file__).parent
TESTS = Path(__file__).parent
# room -> rooms it may import from (besides itself); floors from the ground up
ALLOWED = {
    # floor 0
    "functional": set(),
    "annotations": set(),
    "as_config": set(),
    "console": set(),
    "errors": set(),
    "housekeeping": set(),
    "passwords": set(),
    "paths": set(),
    "tables": set(),
    "allocator": set(),
    "renamed": set(),
    "strict_json": set(),
    "threads": set(),
    "torch_internals": set(),
    # floor 1
    "dotted_path": {"errors", "renamed"},
    "overrides": {"errors", "paths"},
    "distributed": {"errors"},
    "models": {"annotations", "as_config", "dotted_path", "errors"},
    "binding": {"annotations", "dotted_path", "errors", "models"},
    "config": {"binding", "dotted_path", "errors", "models", "overrides"},
    "network": {"models"},
    "runs": {"errors", "strict_json", "tables"},
    # floor 2
    "data": {"distributed", "errors", "models"},
    "layers": {"distributed", "functional"},
    # floor 3
    "trace": {"allocator", "functional", "layers"},
    # floor 4
    "compression": {"distributed", "errors", "functional", "layers", "trace"},
    "scoring": {"functional", "layers", "tables", "trace"},
    # floor 5
    "artifact": {
        "compression", "config", "dotted_path", "errors", "functional", "layers", "models", "network", "runs", "trace",
    },
    "latency": {"artifact", "layers", "network", "tables"},
    "explore": {
        "distributed", "errors", "functional", "layers", "passwords", "renamed", "scoring", "strict_json", "trace",
    },
    # floor 6
    "checkpoint": {"artifact", "config", "errors", "layers", "models", "network", "renamed", "runs", "strict_json"},
    # floor 7
    "training": {
        "checkpoint", "compression", "data", "distributed", "errors", "functional", "layers", "models",
        "network", "runs",
    },
    "library": {
        "artifact", "as_config", "checkpoint", "compression", "config", "dotted_path", "errors", "layers", "models",
        "network", "runs",
    },
    # floor 8
    "stages": {
        "allocator", "artifact", "checkpoint", "compression", "config", "console", "data", "distributed", "dotted_path",
        "errors",
        "explore", "functional", "housekeeping", "latency", "layers", "models", "network",
        "overrides", "passwords", "paths", "renamed",
        "runs", "scoring", "strict_json", "tables", "threads", "trace", "training",
    },
    # floor 9
    "command": {
        "allocator", "console", "dotted_path", "errors", "housekeeping", "overrides", "passwords", "paths", "runs",
        "stages", "strict_json", "threads",
    },
    "__init__": {"compression", "layers", "library", "scoring"},
}  # fmt: skip
EVERYWHERE = {"torch_internals"}
SEES_CFG = {"command", "config", "overrides", "stages"}


@functools.cache
def modules():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        found.append((relative, relative.parts[0].removesuffix(".py"), ast.parse(path.read_text())))
    return found


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


def test_every_room_stands_on_rooms_named_before_it():
    below = set()
    for room, allowed in ALLOWED.items():
        assert allowed <= below, room
        below.add(room)


def test_no_edge_of_the_plan_is_unused():
    used = {room: set() for room in ALLOWED}
    for _, room, tree in modules():
        used[room] |= {name.split(".")[1] for name in imported(tree) if name.startswith("micronet_cli.")}
    assert {room: sorted(allowed - used[room]) for room, allowed in ALLOWED.items() if allowed - used[room]} == {}


@pytest.mark.parametrize(("path", "room", "tree"), [pytest.param(*m, id=str(m[0])) for m in modules()])
def test_imports_stay_on_their_floor(path, room, tree):
    own = [name.split(".")[1] for name in imported(tree) if name.startswith("micronet_cli.")]
    assert set(own) - {room} <= ALLOWED[room] | EVERYWHERE
    if room not in SEES_CFG:
        assert not [name for name in imported(tree) if name.split(".")[0] in ("hydra", "omegaconf")]


def test_no_module_leads_back_to_itself():
    """Imports below a function or for types alone count too: a circle is a circle."""
    known = {".".join(("micronet_cli", *path.with_suffix("").parts)) for path, _, _ in modules()}
    graph = {}
    for path, _, tree in modules():
        name = ".".join(("micronet_cli", *path.with_suffix("").parts))
        graph[name] = set()
        for found in imported(tree):
            graph[name] |= {candidate for candidate in (found, f"{found}.__init__") if candidate in known}
    list(graphlib.TopologicalSorter(graph).static_order())


def private_names(tree):
    """Attributes with a leading underscore of anything but the object itself."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not re.fullmatch(r"_[a-z]\w*(?<!_)", node.attr):
            continue
        of_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        of_its_base = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", None) == "super"
        if not (of_itself or of_its_base):
            yield node.attr


@pytest.mark.parametrize(("path", "room", "tree"), [pytest.param(*m, id=str(m[0])) for m in modules()])
def test_private_names_are_used_behind_public_ones(path, room, tree):
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    public = {"_exit", "_replace"}  # of os and of named tuples, in spite of their underscore
    found = set(private_names(tree)) - own - public
    assert room == "torch_internals" or not found


def test_every_source_file_has_a_test_of_its_name():
    """``src/<room>/<file>.py`` has ``tests/<room>/test_<file>.py``, or one there whose name starts with that."""
    missing = []
    for path, _, _ in modules():
        if path.name == "__init__.py":
            continue
        beside = (TESTS / path.parent).glob(f"test_{path.stem}*.py")
        if not any(beside):
            missing.append(path.as_posix())
    assert missing == []
