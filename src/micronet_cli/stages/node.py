"""The config node ``stage``: what it may hold, and the module that it names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from omegaconf import DictConfig

from micronet_cli.config import build
from micronet_cli.dotted_path import import_named
from micronet_cli.errors import UserError

BudgetName = Literal["score", "storage_bytes", "math_ops", "latency_ms"]


@dataclass(frozen=True)
class PipelineStep:
    """A step of ``stage=pipeline``.

    Attributes:
        stage: the stage that it runs, any option of the group; null: the one that has the step's name, or train.
        groups: the compression groups that it keeps; without any, one that trains is the dense network's.
        settings: what it fills in where the pipeline leaves null.
        after: the step that it follows; null: the one written before it.
        init_from: the step that it begins from; null: the newest one before it that makes a network.
        budgets: the targets of ``budget`` that it is for, without one of which it is left out; empty: it always runs.
        rules: the step whose rule files take the place of its groups, as ``stage=allocate`` writes them.
    """

    stage: str | None = None
    groups: list[Literal["prune", "quantize", "distill"]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None
    init_from: str | None = None
    rules: str | None = None
    budgets: list[BudgetName] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """What every stage has; a module with keys of its own calls its subclass ``Node``.

    Attributes:
        name: what metrics.json and the default directory call it.
        module: dotted path of a module with ``run(job)``.
        steps: the pipeline's, null leaves one out; a whole recipe may be composed with any stage.
    """

    name: str
    module: str
    steps: Mapping[str, PipelineStep | None] = field(default_factory=dict)


def stage_module(config: DictConfig) -> ModuleType:
    """The module of ``config``'s stage.

    Raises:
        UserError: there is none, it has no ``run``, or a key below ``stage`` is wrong.
    """
    path = config.stage.module
    if not isinstance(path, str) or not path:
        raise UserError(f"stage.module={path!r}: must be the dotted path of a module with run(job)")
    module = import_named(path, "stage.module")
    if not hasattr(module, "run"):
        raise UserError(f"stage.module={path!r}: has no run(job); see docs/extending.md")
    stage_node(config, module)
    return module


def stage_node(config: DictConfig, module: ModuleType) -> Any:
    """The config node ``stage`` as an object of the module's class ``Node``, or of ``Stage``.

    Raises:
        UserError: a key below ``stage`` is wrong.
    """
    return build(config.stage, "stage", getattr(module, "Node", Stage))
