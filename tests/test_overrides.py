"""Guards what a user types: the same value reaches the config, and Hydra's complaints come in a user's words."""

import string
from pathlib import Path
from typing import NamedTuple

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from micronet_cli import overrides
from micronet_cli.errors import UserError
from micronet_cli.overrides import as_override, explain, free_key, group_names


class Freed(NamedTuple):
    typed: str
    expected: str


FREED = {
    "a key": Freed("trainer.epochs=3", "++trainer.epochs=3"),
    "a group": Freed("quantize=w4a4", "quantize=w4a4"),
    "a group's package": Freed("quantize@teacher=w4a4", "quantize@teacher=w4a4"),
    "a path of groups": Freed("hydra/launcher=joblib", "hydra/launcher=joblib"),
    "hydra's own": Freed("hydra.run.dir=x", "hydra.run.dir=x"),
    "added already": Freed("+a.b=1", "+a.b=1"),
    "forced already": Freed("++a.b=1", "++a.b=1"),
    "taken away": Freed("~prune.rules.fc", "~prune.rules.fc"),
    "a flag": Freed("-m", "-m"),
    "a long flag": Freed("--config-dir=x=y", "--config-dir=x=y"),
    "no value": Freed("seed", "seed"),
    "an empty value": Freed("name=", "++name="),
    "null": Freed("init_from=null", "++init_from=null"),
    "brackets in a pattern": Freed("prune.rules.a.match=layer[12].*", "++prune.rules.a.match='layer[12].*'"),
    "a pattern quoted already": Freed("prune.rules.a.match='x|y'", "++prune.rules.a.match='x|y'"),
    "a pattern quoted twice": Freed('prune.rules.a.match="x|y"', '++prune.rules.a.match="x|y"'),
    "an equals sign": Freed("init_from=runs/lr=0.1", "++init_from='runs/lr=0.1'"),
    "brackets": Freed("hydra.run.dir=runs (2)", "hydra.run.dir='runs (2)'"),
    "brackets like a call's": Freed("hydra.run.dir=runs(2)", "hydra.run.dir='runs(2)'"),
    "braces": Freed("data.train=train-{0000..0099}.tar", "++data.train='train-{0000..0099}.tar'"),
    "braces with a comma": Freed("data.train=train-{a,b}.tar", "++data.train='train-{a,b}.tar'"),
    "a quote within": Freed("init_from=it's", r"++init_from='it\'s'"),
    "a letter with an accent": Freed("data.train=Säle/é", "++data.train='Säle/é'"),
    "a list": Freed("milestones=[1,2]", "++milestones=[1,2]"),
    "a mapping": Freed("model.args={a: 1}", "++model.args={a: 1}"),
    "a sweep": Freed("seed=1,2", "++seed=1,2"),
    "a call": Freed("seed=range(3)", "++seed=range(3)"),
    "an interpolation": Freed("seed=${oc.env:A(B)}", "++seed=${oc.env:A(B)}"),
}


@pytest.mark.parametrize("case", FREED.values(), ids=FREED.keys())
def test_free_key_of(case):
    assert free_key(case.typed) == case.expected


def test_free_key_expands_the_home_directory():
    assert free_key("init_from=~/runs/a") == f"++init_from={Path.home()}/runs/a"
    assert free_key("init_from=a/~b") == "++init_from='a/~b'"


@pytest.mark.parametrize("key", ["prune", "prune@stage"])
def test_free_key_refuses_null_for_a_group(key):
    with pytest.raises(UserError) as caught:
        free_key(f"{key}=null")
    assert str(caught.value) == f"{key}=null: a group takes an option, as {key}=none where there is one"


VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "0": 0,
    "a negative number": -3,
    "a small number": 1e-05,
    "a name": "w4a4",
    "a path": "/runs/a-b_c.d",
    "empty text": "",
    "a quote": "it's",
    "spaces and commas": "it is, two",
    "text like a list": "[1, 2]",
    "text like a number": "12",
    "an equals sign": "a=b",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_as_override_is_read_back_as_the_same_value(value):
    (parsed,) = OverridesParser.create().parse_overrides([as_override("key", value)])
    read = parsed.value()
    read = str(read.text) if hasattr(read, "text") else read
    assert (parsed.key_or_group, read, type(read)) == ("key", value, type(value))


# Signs of which each is a path's, or a word's of its own.
SIGNS = [sign for sign in string.punctuation + "é" if sign not in ",$"]


@pytest.mark.parametrize("sign", SIGNS)
def test_a_path_with_any_sign_is_read_as_it_was_typed(sign):
    for typed in (f"runs/a{sign}b", f"runs/ab{sign}"):
        (parsed,) = OverridesParser.create().parse_overrides([free_key(f"init_from={typed}")])
        assert getattr(parsed.value(), "text", parsed.value()) == typed


def test_option_of_the_user_stands_before_the_packaged(tmp_path, monkeypatch):
    (tmp_path / "prune").mkdir()
    own = tmp_path / "prune" / "agp.yaml"
    own.touch()
    monkeypatch.setattr(overrides, "CONFIG_DIRECTORIES", [tmp_path, *overrides.CONFIG_DIRECTORIES])
    options = overrides.options_of("prune")
    assert options["agp"] == own
    assert "lamp" in options
    assert "micronet2019/efficientnet_b1" in overrides.options_of("experiment")


def test_group_names_are_sorted_and_without_files():
    names = group_names()
    assert names == sorted(names)
    assert {"model", "prune", "quantize", "stage", "trainer"} <= set(names)
    assert "config.yaml" not in names


def test_group_names_has_the_user_s_own(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "note.yaml").touch()
    monkeypatch.setattr(overrides, "CONFIG_DIRECTORIES", [*overrides.CONFIG_DIRECTORIES, tmp_path, tmp_path / "no"])
    assert "mine" in group_names()
    assert "note.yaml" not in group_names()
    assert group_names().count("prune") == 1
    assert free_key("mine=a") == "mine=a"


def complaint(composed, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        hydra.compose("config", list(arguments))
    return explain(caught.value)


def test_explain_names_an_option_that_is_none(composed):
    said = complaint(composed, "stage=prunne")
    assert said.startswith("stage=prunne: no such option; did you mean prune? (there are ")
    assert "shrink" in said


def test_explain_asks_for_an_option_that_is_left_out(composed):
    assert (
        complaint(composed, "model=")
        == "model=: must be followed by an option (there are auto, timm and every timm name)"
    )
    assert complaint(composed, "ptq=") == "ptq=: must be followed by an option (there are block, default, none)"


def test_explain_names_a_value_that_the_grammar_refuses(composed):
    said = complaint(composed, "++trainer.epochs=[1")
    assert said.startswith("trainer.epochs=[1: ")
    assert said.endswith("quote a value with signs of Hydra's grammar, as \"trainer.epochs='...'\"")
    assert len(said.splitlines()) == 1


def test_explain_keeps_another_message_without_its_empty_lines():
    assert explain(ValueError("one\n\n  \ntwo")) == "one\ntwo"
    assert explain(ValueError("")) == ""


def test_explain_ends_where_causes_go_in_a_circle():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert explain(first) == "first"
