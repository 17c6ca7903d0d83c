"""The steps of ``stage=pipeline``: their order, and the whole config of each."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError, near_misses
from micronet_cli.models.model import untrained
from micronet_cli.overrides import options_of
from micronet_cli.paths import CONF
from micronet_cli.stages.compress import COMPRESSORS
from micronet_cli.stages.inherit import trusted
from micronet_cli.stages.node import stage_module

GROUPS = ("prune", "quantize", "distill")
NAMED_BY_STEP = ("train", "prune", "qat")  # before steps had a key `stage`, their names were the stages'
NO_STEPS = ("pipeline", "search")  # they run stages themselves
TRAINING = (None, "train", "prune", "qat")


@dataclass
class Step:
    """A step that is run.

    Attributes:
        config: the whole config of its run.
        directory: of its run.
        makes_network: what comes after it begins with its network.
        rules_from: directory of the run whose rule files take the place of its groups; None: it keeps them.
    """

    config: DictConfig
    directory: Path
    makes_network: bool
    rules_from: Path | None = None

    def take_rules(self) -> bool:
        """Put what was allocated in the place of the compressors' groups; whether that leaves anything to do."""
        if self.rules_from is None:
            return True
        found = False
        for group in COMPRESSORS:
            if not self.config[group]:
                continue
            file = rule_file(self.rules_from, group)
            # No file: no layer got a rule of this group.
            self.config[group] = OmegaConf.load(file) if file.is_file() else None
            found = found or file.is_file()
        return found


def rule_file(directory: Path, group: str) -> Path:
    """Where ``stage=allocate`` writes a group's rules, as an option called ``budget``."""
    return directory / "rules" / group / "budget.yaml"


def steps(config: DictConfig, directory: Path) -> dict[str, Step]:
    """Step name -> the step, in the order in which they are run.

    A step keeps the compression groups it names and drops the others; its own settings fill what the pipeline leaves
    null. A network that brings its weights is evaluated where another one is trained, unless its classifier is of other
    data (that is found out where the step begins). A step that is null is left out, and so is one whose compressors are
    off.

    Raises:
        UserError: a step names one that there is not, or that comes later; there is no such stage.
    """
    written = in_order(to_plain(config.stage.steps))
    found: dict[str, Step] = {}
    network = config.init_from
    dense = ""
    trust: tuple[str, ...] = ()
    for number, (name, step) in enumerate(_kept(written, config).items(), 1):
        own = OmegaConf.create(to_plain(config))
        own.stage = _stage_of(name, step, config)
        own.name = name
        begins_from = _named("init_from", name, written, found)
        own.init_from = network if begins_from is None else str(begins_from.directory)
        if own.init_from:
            # The first step has taken them.
            own.model = untrained(to_plain(own.model))
        for group in GROUPS:
            if group not in step["groups"]:
                own[group] = None
        if step.get("stage") == "report" and own.runs is None:
            # Of the steps before it.
            own.runs = f"{glob.escape(str(directory))}/[0-9]*_*"
        _fill_null(own, step.get("settings") or {})
        if step.get("stage") not in TRAINING:
            _fill_null(own, _packaged_training())
        # What one step's config names stands in the file that the next begins with.
        trust = tuple(dict.fromkeys([*trust, *trusted(own)]))
        own.trust = list(trust)
        if _needs_teacher(own):
            own.distill.teacher.weights = dense or network
        rules = _named("rules", name, written, found)
        module = stage_module(own)
        found[name] = Step(
            config=own,
            directory=step_directory(directory, number, name),
            makes_network=getattr(module, "MAKES_NETWORK", True),
            rules_from=None if rules is None else rules.directory,
        )
        if found[name].makes_network:
            network = str(found[name].directory)
            dense = dense or network
    return found


def in_order(written: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any] | None]:
    """The steps as they are written, each with ``after`` moved behind the step that it names.

    >>> list(in_order({"a": {}, "b": None, "c": {"after": "a"}, "d": {"after": "c"}, "e": {"after": "a"}}))
    ['a', 'c', 'd', 'e', 'b']

    Raises:
        UserError: there is no such step, or steps wait for each other.
    """
    order: list[str] = []
    waiting: dict[str, str] = {}
    for name, step in written.items():
        after = (step or {}).get("after")
        if after is None:
            order.append(name)
        else:
            waiting[name] = after
    while waiting:
        ready = {name: after for name, after in waiting.items() if after in order}
        if not ready:
            name, after = next(iter(waiting.items()))
            raise UserError(f"stage.steps.{name}.after={after}: {_no_such_step(after, order)}")
        # The last first, so that those that follow the same step stay as they are written.
        for name, after in reversed(ready.items()):
            order.insert(order.index(after) + 1, name)
            del waiting[name]
    return {name: written[name] for name in order}


def _named(key: str, name: str, written: Mapping[str, Any], found: Mapping[str, Step]) -> Step | None:
    """The step that the key of a step names; None where it names none, or one that is left out.

    Raises:
        UserError: there is no such step, or it comes later.
    """
    other = written[name].get(key)
    if other is None or other in found:
        return found.get(other)
    before = list(written)[: list(written).index(name)]
    is_null = other in written and written[other] is None  # wherever it stands, for its `after` is gone
    if other not in before and not is_null:
        raise UserError(f"stage.steps.{name}.{key}={other}: {_no_such_step(other, before)}")
    return None


def _no_such_step(name: str, known: list[str]) -> str:
    return f"no such step before it{near_misses(name, known)}"


def stage_of_step(stage: str | None, step: str) -> dict[str, Any]:
    """The config node ``stage`` of a stage; without one, of ``step``'s name, which train's module runs.

    Raises:
        UserError: there is no such stage, or it runs stages itself.
    """
    if stage is None and step not in NAMED_BY_STEP:
        return named_stage("train") | {"name": step}
    known = set(options_of("stage")) - set(NO_STEPS)
    name = stage or step
    if name not in known:
        listed = ", ".join(sorted(known))
        raise UserError(f"stage.steps.{step}.stage={name!r}: must be one of {listed}{near_misses(name, known)}")
    return named_stage(name)


def named_stage(name: str) -> dict[str, Any]:
    """The config node ``stage`` that stage=``name`` gives."""
    file = options_of("stage")[name]
    return to_plain(OmegaConf.load(file).stage)


def _packaged_training() -> dict[str, Any]:
    """What a pipeline leaves null for its steps that train; of the others it only has to be a number."""
    return {
        "trainer": to_plain(OmegaConf.load(CONF / "trainer" / "default.yaml")),
        "optim": to_plain(OmegaConf.load(CONF / "optim" / "sgd.yaml")),
    }


def _kept(written: Mapping[str, dict[str, Any] | None], config: DictConfig) -> dict[str, dict[str, Any]]:
    """Name -> settings, of the steps that are run."""
    kept = {}
    for name, step in written.items():
        if step is None:
            continue
        step = {"groups": []} | step
        if _is_for(step, config) and _compresses(step, config):
            kept[name] = step
    return kept


def _is_for(step: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether the budget's target is one of those that the step is for."""
    budgets = step.get("budgets")
    if not budgets:
        return True
    return any(config.budget.get(name) is not None for name in budgets)


def _compresses(step: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether one of its compressors is on; true of a step that has none, as the dense one."""
    named = [group for group in COMPRESSORS if group in step["groups"]]
    if not named:
        return True
    return any(config[group] for group in named)


def _stage_of(name: str, step: Mapping[str, Any], config: DictConfig) -> dict[str, Any]:
    """The config node ``stage`` of a step."""
    stage = step.get("stage")
    dense = not step["groups"] and stage in (None, "train")
    model = config.model
    trained = config.init_from or model.get("weights") or model.get("pretrained")
    if dense and trained:
        return named_stage("eval")
    return stage_of_step(stage, name)


def _needs_teacher(own: DictConfig) -> bool:
    """Whether a step distils from a teacher that its settings leave open."""
    if not own.distill:
        return False
    teacher = own.distill.teacher
    given = teacher.get("model") or teacher.get("weights")
    return not given


def step_directory(directory: Path, number: int, name: str) -> Path:
    """Where a step's run lies."""
    return directory / f"{number}_{name}"


def _fill_null(node: Any, defaults: Mapping[str, Any]) -> None:
    """Give what the node leaves null its default, deep down too."""
    for key, value in defaults.items():
        given = node.get(key)
        if isinstance(value, dict) and isinstance(given, DictConfig):
            _fill_null(given, value)
        elif given is None:
            node[key] = value
