"""Guards the config node ``stage``: the module that it names, its keys, and the steps of a pipeline."""

import sys
import types
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.stages import score, shrink
from micronet_cli.stages.node import PipelineStep, Stage, stage_module, stage_node


def config_of(module, **more):
    return OmegaConf.create({"stage": {"name": "x", "module": module} | more})


def test_a_stage_has_its_own_keys_and_no_others():
    module = "micronet_cli.stages.{}"
    shrink = OmegaConf.create({"stage": {"name": "shrink", "module": module.format("shrink"), "multiple": 16}})
    assert stage_module(shrink).__name__ == module.format("shrink")
    shrink.stage.module = module.format("score")
    with pytest.raises(UserError, match=r"stage\.multiple: unknown key"):
        stage_module(shrink)


def test_module_without_a_node_of_its_own_has_a_stage():
    node = stage_node(config_of("micronet_cli.stages.score"), score)
    assert node == Stage("x", "micronet_cli.stages.score")


def test_module_s_own_node_has_its_key():
    assert stage_node(config_of("micronet_cli.stages.shrink", multiple=8), shrink).multiple == 8


def test_steps_become_objects_and_null_leaves_one_out():
    steps = {"a": {"stage": "prune", "groups": ["prune"], "settings": {"optim": {"lr": 0.1}}}, "b": None, "c": {}}
    node = stage_node(config_of("micronet_cli.stages.score", steps=steps), score)
    assert node.steps == {
        "a": PipelineStep("prune", ["prune"], {"optim": {"lr": 0.1}}),
        "b": None,
        "c": PipelineStep(),
    }


class Mistake(NamedTuple):
    """What ``stage.module`` is, what stands beside it, and the answer."""

    module: str | None
    below: dict[str, Any]
    said: str


SCORE = "micronet_cli.stages.score"
SHRINK = "micronet_cli.stages.shrink"
MISTAKES = {
    "no stage": Mistake("os.path", {}, "stage.module='os.path': has no run(job); see docs/extending.md"),
    "no module": Mistake(
        f"{SCORE}s",
        {},
        f"stage.module: '{SCORE}s' cannot be imported; micronet_cli.stages has no scores; "
        "did you mean score or compress or rescue?",
    ),
    "null": Mistake(None, {}, "stage.module=None: must be the dotted path of a module with run(job)"),
    "another module's key": Mistake(SCORE, {"multiple": 1}, "stage.multiple: unknown key; did you mean module?"),
    "a wrong value": Mistake(SHRINK, {"multiple": "x"}, "stage.multiple='x': must be a whole number"),
    "a step's stage": Mistake(
        SCORE,
        {"steps": {"a": {"stage": 3}}},
        "stage.steps.a.stage=3: must be text or null",
    ),
    "a step's group": Mistake(
        SCORE,
        {"steps": {"a": {"groups": ["ptq"]}}},
        "stage.steps.a.groups[0]='ptq': must be prune or quantize or distill",
    ),
    "a step's budget": Mistake(
        SCORE,
        {"steps": {"a": {"budgets": ["scor"]}}},
        "stage.steps.a.budgets[0]='scor': must be score or storage_bytes or math_ops or latency_ms",
    ),
    "a step's key": Mistake(
        SCORE,
        {"steps": {"a": {"group": []}}},
        "stage.steps.a.group: unknown key; did you mean groups?",
    ),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_below_stage_is_named(case):
    with pytest.raises(UserError) as caught:
        stage_module(config_of(case.module, **case.below))
    assert str(caught.value) == case.said


def test_error_within_a_stage_s_own_imports_is_not_hidden(monkeypatch, tmp_path):
    package = types.ModuleType("micronet_cli.own")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    (tmp_path / "broken.py").write_text("import a_library_that_is_not_there\n")
    with pytest.raises(UserError, match=r"a_library_that_is_not_there'.*broken\.py:1"):
        stage_module(config_of("micronet_cli.own.broken"))
