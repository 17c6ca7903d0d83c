"""Guards the way from a config node to an object: what is built, and what every mistake is answered with."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli.config import build, check_config, to_plain
from micronet_cli.dotted_path import locate
from micronet_cli.errors import UserError
from micronet_cli.functional.pruning import lamp, magnitude
from micronet_cli.runs.loggers import MLflow, TensorBoard
from tests.conftest import TINY

LOGGERS = "micronet_cli.runs.loggers"
MAGNITUDE = "micronet_cli.functional.pruning.magnitude"
LAMP = "micronet_cli.functional.pruning.lamp"


@dataclass(frozen=True)
class Leaf:
    """A type without ``_target_`` that another one's signature names."""

    size: int
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: must be at least 1")


@dataclass(frozen=True)
class Tree:
    """One parameter of every kind of annotation that stages use."""

    leaf: Leaf = Leaf(1)
    leaves: dict[str, Leaf] = field(default_factory=dict)
    rows: list[Leaf] = field(default_factory=list)
    either: Leaf | float | None = None
    mode: Literal["keep", "drop"] = "keep"
    flag: bool = False
    name: str = ""
    measure: Callable[..., Any] = magnitude
    own: Callable[..., Any] | float | None = None
    free: Any = None


class Built(NamedTuple):
    node: dict[str, Any]
    expected: Tree


BUILT = {
    "nothing given": Built({}, Tree()),
    "a mapping for a dataclass": Built({"leaf": {"size": 2}}, Tree(leaf=Leaf(2))),
    "mappings in a mapping": Built({"leaves": {"a": {"size": 3}}}, Tree(leaves={"a": Leaf(3)})),
    "an empty mapping": Built({"leaves": {}}, Tree()),
    "mappings in a list": Built({"rows": [{"size": 1}, {"size": 2}]}, Tree(rows=[Leaf(1), Leaf(2)])),
    "a union's mapping": Built({"either": {"size": 1}}, Tree(either=Leaf(1))),
    "a union's number": Built({"either": 0.25}, Tree(either=0.25)),
    "a union's null": Built({"either": None}, Tree()),
    "a literal": Built({"mode": "drop"}, Tree(mode="drop")),
    "a whole number for a number": Built({"leaf": {"size": 1, "rate": 2}}, Tree(leaf=Leaf(1, 2))),
    "a function by its path": Built({"measure": MAGNITUDE}, Tree()),
    "a union's function": Built({"own": LAMP}, Tree(own=lamp)),
    "a union beside a function": Built({"own": 0.5}, Tree(own=0.5)),
    "??? is the default": Built({"name": "???"}, Tree()),
    "anything is kept": Built({"free": {"a": [1, "x"]}}, Tree(free={"a": [1, "x"]})),
    "a target where anything goes": Built(
        {"free": {"tracker": {"_target_": f"{LOGGERS}.TensorBoard"}}}, Tree(free={"tracker": TensorBoard()})
    ),
}


@pytest.mark.parametrize("case", BUILT.values(), ids=BUILT.keys())
def test_node_becomes_what_the_annotations_say(case):
    assert build(OmegaConf.create(case.node), "tree", Tree) == case.expected


class Mistake(NamedTuple):
    node: dict[str, Any]
    said: str


MISTAKES = {
    "unknown key": Mistake({"flga": 1}, "tree.flga: unknown key; did you mean flag or leaf?"),
    "unknown key below": Mistake({"leaf": {"size": 1, "rat": 1}}, "tree.leaf.rat: unknown key; did you mean rate?"),
    "nothing is alike": Mistake({"zzz": 1}, "tree.zzz: unknown key"),
    "missing": Mistake({"leaf": {"rate": 1}}, "tree.leaf.size: missing; give tree.leaf.size=<a whole number>"),
    "???": Mistake({"leaf": {"size": "???"}}, "tree.leaf.size: missing; give tree.leaf.size=<a whole number>"),
    "no whole number": Mistake({"leaf": {"size": 1.5}}, "tree.leaf.size=1.5: must be a whole number"),
    "true is no whole number": Mistake({"leaf": {"size": True}}, "tree.leaf.size=True: must be a whole number"),
    "true is no number": Mistake({"leaf": {"size": 1, "rate": True}}, "tree.leaf.rate=True: must be a number"),
    "1 is not true": Mistake({"flag": 1}, "tree.flag=1: must be true or false"),
    "no text": Mistake({"name": 7}, "tree.name=7: must be text"),
    "no list": Mistake({"rows": "a"}, "tree.rows='a': must be a list"),
    "no such choice": Mistake({"mode": "kep"}, "tree.mode='kep': must be keep or drop"),
    "a list's item": Mistake({"rows": [{"size": 1}, 7]}, "tree.rows[1]=7: must be a mapping with the keys size, rate"),
    "a mapping's item": Mistake({"leaves": {"b": 7}}, "tree.leaves.b=7: must be a mapping with the keys size, rate"),
    "no member of a union": Mistake(
        {"either": "x"}, "tree.either='x': must be a mapping with the keys size, rate or a number or null"
    ),
    "a union's mapping": Mistake({"either": {"siz": 1, "size": 1}}, "tree.either.siz: unknown key; did you mean size?"),
    "a value the constructor refuses": Mistake({"leaf": {"size": 0}}, "tree.leaf.size=0: must be at least 1"),
    "a function that is none": Mistake(
        {"measure": MAGNITUDE[:-1]},
        f"tree.measure: '{MAGNITUDE[:-1]}' cannot be imported; micronet_cli.functional.pruning has no magnitud; "
        "did you mean magnitude?",
    ),
    "a union's function that is none": Mistake(
        {"own": "nowhere.f"},
        f"tree.own: 'nowhere.f' cannot be imported; there is no nowhere in {os.getcwd()} or installed",
    ),
    "a number for a function": Mistake({"measure": 3}, "tree.measure=3: must be the dotted path of a function"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_named_by_its_path(case):
    with pytest.raises(UserError) as caught:
        build(case.node, "tree", Tree)
    assert str(caught.value) == case.said


def test_all_mistakes_are_answered_at_once():
    node = {"leaf": {"rate": "x"}, "rows": [{"size": 0}, {"size": "?"}], "mode": 1}
    with pytest.raises(UserError) as caught:
        build(node, "tree", Tree)
    assert str(caught.value).splitlines() == [
        "tree.leaf.rate='x': must be a number",
        "tree.leaf.size: missing; give tree.leaf.size=<a whole number>",
        "tree.rows[0].size=0: must be at least 1",
        "tree.rows[1].size='?': must be a whole number",
        "tree.mode=1: must be keep or drop",
    ]


def test_target_is_built_with_its_keys():
    assert build({"_target_": f"{LOGGERS}.MLflow", "experiment": "e"}, "logger") == MLflow(experiment="e")


def test_target_stands_before_the_kind():
    assert build({"_target_": f"{LOGGERS}.TensorBoard"}, "logger", Leaf) == TensorBoard()


def test_function_is_called_where_it_is_a_target():
    assert build({"_target_": "micronet_cli.functional.packing.packed_bytes", "count": 9, "base": 2}, "x") == 2


def test_target_that_is_none_hides_no_other_mistake():
    node = {"leaf": {"_target_": "micronet_cli.nope", "command": "x"}, "flag": 1}
    with pytest.raises(UserError) as caught:
        build(node, "tree", Tree)
    first, second = str(caught.value).splitlines()
    assert first == "tree.leaf: 'micronet_cli.nope' cannot be imported; micronet_cli has no nope"
    assert second == "tree.flag=1: must be true or false"


@pytest.mark.parametrize("kind", [Mapping[str, int], dict[str, int], dict], ids=str)
def test_empty_mapping_of_a_kind_stays_one(kind):
    assert build({}, "x", kind) == {}


@pytest.mark.parametrize("node", [None, {}, OmegaConf.create({})], ids=["null", "empty", "an empty config"])
def test_group_that_is_off_is_nothing(node):
    assert build(node, "search") is None


def test_locate_finds_functions_and_classes():
    assert locate(MAGNITUDE, "x") is magnitude
    assert locate(f"{LOGGERS}.MLflow", "x") is MLflow


class NotFound(NamedTuple):
    path: str
    said: str


NOT_FOUND = {
    "no such package": NotFound(
        "micronet_cli2.run", "x: 'micronet_cli2.run' cannot be imported; there is no micronet_cli2"
    ),
    "nothing": NotFound("", "x: '' is not a dotted path"),
    "no such module": NotFound(
        "micronet_cli.nope.f", "x: 'micronet_cli.nope.f' cannot be imported; micronet_cli has no nope"
    ),
    "no such name": NotFound(f"{LOGGERS}.MLFlow", f"{LOGGERS} has no MLFlow; did you mean MLflow?"),
}


@pytest.mark.parametrize("case", NOT_FOUND.values(), ids=NOT_FOUND.keys())
def test_locate_says_why_it_finds_nothing(case):
    with pytest.raises(UserError) as caught:
        locate(case.path, "x")
    assert case.said in str(caught.value)


def test_to_plain_resolves_and_copies():
    config = OmegaConf.create({"a": 1, "b": ["${a}"]})
    plain = to_plain(config)
    assert plain == {"a": 1, "b": [1]}
    plain["b"].append(2)
    assert to_plain(config)["b"] == [1]
    assert to_plain(3) == 3


def test_check_config_builds_the_groups_that_are_on(composed):
    built = check_config(composed("stage=train", *TINY, "quantize=none"))
    assert built["quantize"] is None
    assert built["data"].input_size == 16
    assert not built.keys() & {"experiment", "hydra", "stage", "seed"}


class Answered(NamedTuple):
    override: str
    said: str


CONFIG_MISTAKES = {
    "unknown key": Answered("trainr=1", "trainr: unknown key; did you mean trainer?"),
    "a setting's kind": Answered("resume=maybe", "resume='maybe': must be true or false"),
    "a setting that may be null": Answered("runs=[a]", "runs=['a']: must be text or null"),
    "a negative seed": Answered("seed=-1", "seed=-1: must be at least 0"),
    "a key of a group that is off": Answered(
        "distill.weight=1", "distill.weight: distill=none takes no keys; choose an option, distill=<name>"
    ),
}


@pytest.mark.parametrize("case", CONFIG_MISTAKES.values(), ids=CONFIG_MISTAKES.keys())
def test_check_config_answers_mistakes(composed, case):
    with pytest.raises(UserError) as caught:
        check_config(composed("stage=train", *TINY, case.override))
    assert str(caught.value) == case.said


def test_check_config_answers_the_mistakes_of_all_groups(composed):
    with pytest.raises(UserError) as caught:
        check_config(composed("stage=train", *TINY, "seed=x", "trainer.epoch=1", "optim.lr=x"))
    paths = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert {"seed='x'", "trainer.epoch", "optim.lr='x'"} <= set(paths)
