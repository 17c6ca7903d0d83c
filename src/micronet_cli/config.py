"""From a composed config to the objects of its groups: all mistakes at once, by config path."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.binding import Binder
from micronet_cli.dotted_path import OWN, is_within
from micronet_cli.errors import UserError, near_misses
from micronet_cli.models.model import Model
from micronet_cli.overrides import group_names

NOT_BUILT = ("experiment", "hydra", "stage")  # directories of options that are no part of a stage
SETTINGS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "resume": bool,
    "debug": bool,
    "init_from": str | None,
    "runs": str | None,
    "trust": list[str] | None,
}
KINDS: dict[str, Any] = {"model": Model}  # what a group's object is, where a network may stand for it


def to_plain(cfg: Any) -> Any:
    """A resolved copy of a config node made of dicts, lists and scalars."""
    if not OmegaConf.is_config(cfg):
        return cfg
    return OmegaConf.to_container(cfg, resolve=True)


def build(node: Any, where: str, kind: Any = Any, trust: Sequence[str] | None = None) -> Any:
    """The object that one config node describes, by its ``_target_`` or ``kind``; None for null or an empty node.

    ``trust``: packages that a file's node may name beside micronet; None: the user's own config, which may name all.

    Raises:
        UserError: every mistake in the node, a line each.
    """
    if not node and kind is Any:
        return None
    binder = Binder(trust)
    built = binder.build(to_plain(node), kind, where)
    if binder.problems:
        raise UserError("\n".join(binder.problems))
    return built


def named_packages(cfg: Any) -> list[str]:
    """Packages beside micronet's whose names stand in the groups of the user's own config."""
    binder = Binder()
    plain = to_plain(cfg)
    for group in _built_groups():
        node = plain.get(group)
        if isinstance(node, Mapping) and "_target_" in node:
            binder.build(node, _kind_of(group), group)
    stage = plain.get("stage") or {}
    module = stage.get("module")
    named = list(binder.named)
    if isinstance(module, str):
        named.append(module)
    return _packages(named)


def _built_groups() -> list[str]:
    """The groups whose objects are parts of a stage."""
    return [name for name in group_names() if name not in NOT_BUILT]


def _kind_of(group: str) -> Any:
    return KINDS.get(group, Any)


def packages_named(node: Any, where: str, kind: Any = Any) -> tuple[str, ...]:
    """Packages beside micronet's that one node of the user's own names."""
    binder = Binder()
    binder.build(node, kind, where)
    return tuple(_packages(binder.named))


def _packages(paths: Sequence[str]) -> list[str]:
    """The packages beside micronet's in which the dotted paths begin."""
    packages = set()
    for path in paths:
        if not is_within(path, [OWN]):
            package, _, _ = path.partition(".")
            packages.add(package)
    return sorted(packages)


def refused_names(node: Any, group: str, trust: Sequence[str]) -> list[str]:
    """Why a file may not name what its config of a group names, a line each; nothing refused is imported."""
    binder = Binder(trust)
    plain = to_plain(node)
    binder.build(plain, _kind_of(group), group)
    return binder.refused


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Build every group of ``cfg``: group name -> object (None where the group is ``none``).

    Raises:
        UserError: every mistake in the whole config, a line each.
    """
    plain = to_plain(cfg)
    groups = _built_groups()
    binder = Binder()
    known = {*groups, *SETTINGS, "stage"}
    for key in plain:
        if key not in known:
            binder.problems.append(f"{key}: unknown key{near_misses(key, known)}")
    _check_settings(plain, binder)
    built = {}
    for group in groups:
        node = plain.get(group)
        built[group] = _build_group(node, group, binder)
    if binder.problems:
        raise UserError("\n".join(binder.problems))
    return built


def _check_settings(plain: Mapping[str, Any], binder: Binder) -> None:
    for key, kind in SETTINGS.items():
        if key in plain:
            binder.build(plain[key], kind, key)
    seed = plain.get("seed")
    if isinstance(seed, int) and seed < 0:
        binder.problems.append(f"seed={seed}: must be at least 0")


def _build_group(node: Any, group: str, binder: Binder) -> Any:
    if not node:
        return None
    if "_target_" not in node:
        first_key = next(iter(node))
        binder.problems.append(f"{group}.{first_key}: {group}=none takes no keys; choose an option, {group}=<name>")
        return None
    return binder.build(node, _kind_of(group), group)
