"""What the objects of config groups must be: a ``_target_`` of one's own may name anything."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from micronet_cli.compression.compressor import Compressor
from micronet_cli.config import to_plain
from micronet_cli.data.protocol import DataSet, missing_members
from micronet_cli.errors import UserError
from micronet_cli.scoring.rules import Rules

PROTOCOLS: dict[str, tuple[str, type]] = {
    "data": ("a data set", DataSet),
    "prune": ("a compressor", Compressor),
    "quantize": ("a compressor", Compressor),
}


def check_kinds(checked: Mapping[str, Any], config: DictConfig) -> None:
    """Check that what the config's targets gave can be used as what its groups are.

    Args:
        checked: config group -> the object built from it; groups that a stage leaves out are not looked at.
        config: the whole config.

    Raises:
        UserError: a line a group.
    """
    problems = []
    for group, thing in checked.items():
        node = to_plain(config.get(group)) or {}
        fault = _fault(group, thing)
        if fault and "_target_" in node:
            problems.append(f"{group}._target_={node['_target_']}: {fault}; see docs/extending.md")
    if problems:
        raise UserError("\n".join(problems))


def _fault(group: str, thing: Any) -> str:
    """Why an object cannot be used as the group's; empty where it can."""
    if group == "score":
        return _fault_of_rules(thing)
    if group not in PROTOCOLS:
        return ""
    kind, protocol = PROTOCOLS[group]
    lacking = missing_members(thing, protocol)
    if not lacking:
        return ""
    if thing is None:
        return f"gives nothing; it must be {kind}"
    return f"{kind} must have {', '.join(lacking)}"


def _fault_of_rules(thing: Any) -> str:
    if not isinstance(thing, Rules):
        return f"must be a subclass of {Rules.__module__}.Rules"
    left_out = [name for name in ("storage", "math") if getattr(type(thing), name) is getattr(Rules, name)]
    if left_out:
        return f"a rule set must have {', '.join(left_out)}"
    return ""
