"""The steps of a pipeline: their order, which stage each runs, from what, and with which groups."""

from pathlib import Path

import pytest

from micronet_cli.command.search_path import register
from micronet_cli.errors import UserError
from micronet_cli.stages.pipeline_steps import in_order, named_stage, rule_file, stage_of_step, steps

MODEL = "model=resnet8"


def stages_of(found):
    return {name: (step.config.stage.name, step.config.stage.module.rpartition(".")[2]) for name, step in found.items()}


def test_step_runs_the_stage_it_names(composed):
    config = composed(
        MODEL, "stage.steps.qat=null", "stage.steps.again.stage=prune", "stage.steps.again.groups=[prune]"
    )
    found = steps(config, Path("run"))
    assert stages_of(found) == {"train": ("train", "train"), "prune": ("prune", "train"), "again": ("prune", "train")}
    assert found["again"].config.name == "again"
    assert found["again"].config.init_from == "run/2_prune"


def test_step_without_a_stage_is_named_by_itself(composed):
    """As recorded configs of version 0.1.0 have them."""
    config = composed(MODEL, "stage.steps.prune.stage=null", "stage.steps.more.settings.trainer.epochs=2")
    found = steps(config, Path())
    assert stages_of(found)["prune"] == ("prune", "train")
    assert stages_of(found)["more"] == ("more", "train")


def test_dense_step_of_trained_weights_is_an_evaluation(composed):
    found = steps(composed(MODEL, "model.pretrained=true"), Path())
    assert stages_of(found) == {"train": ("eval", "eval"), "prune": ("prune", "train"), "qat": ("qat", "train")}


def test_stage_of_a_step_is_what_its_yaml_says():
    assert stage_of_step("shrink", "x") == {"name": "shrink", "module": "micronet_cli.stages.shrink", "multiple": 1}
    assert stage_of_step(None, "score") == {"name": "score", "module": "micronet_cli.stages.train"}
    assert named_stage("eval") == {"name": "eval", "module": "micronet_cli.stages.eval"}


@pytest.fixture
def own_stage(composed, tmp_path):
    """A stage ``count`` in a user's config directory."""
    file = tmp_path / "stage" / "count.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nstage:\n  name: count\n  module: micronet_cli.stages.score\n")
    register(tmp_path)
    yield file
    register()


def test_a_step_may_run_a_stage_of_one_s_own(composed, own_stage):
    found = steps(composed(MODEL, "stage.steps.qat.stage=count"), Path("run"))
    assert stages_of(found)["qat"] == ("count", "score")


def test_a_step_about_a_network_is_not_begun_from(composed):
    after = ("stage.steps.score.stage=score", "stage.steps.score.after=train")
    found = steps(composed(MODEL, *after), Path("run"))
    assert list(found) == ["train", "score", "prune", "qat"]
    assert [step.makes_network for step in found.values()] == [True, False, True, True]
    assert found["prune"].config.init_from == "run/1_train"


@pytest.mark.parametrize("stage", ["pipeline", "search"])
def test_a_step_is_no_pipeline(mistake, stage):
    said = mistake(MODEL, "data=digits", f"stage.steps.qat.stage={stage}")
    assert f"stage.steps.qat.stage='{stage}': must be one of allocate, eval, export" in said


def test_settings_fill_only_what_is_null(composed):
    found = steps(composed(MODEL, "optim.lr=0.5"), Path())
    assert [step.config.optim.lr for step in found.values()] == [0.5, 0.5, 0.5]
    assert [step.config.trainer.epochs for step in found.values()] == [12, 6, 4]


@pytest.mark.parametrize("step", ["train", "prune"])
def test_unknown_stage_of_a_step_is_a_mistake(mistake, step):
    said = mistake(MODEL, "data=digits", f"stage.steps.{step}.stage=prunne")
    assert f"stage.steps.{step}.stage='prunne': must be one of allocate, eval," in said
    assert "did you mean prune" in said


def test_pipeline_takes_weights_once(composed):
    found = steps(composed("model=resnet8", "model.weights=x.pth"), Path())
    assert [step.config.model.weights for step in found.values()] == ["x.pth", None, None]


def test_pipeline_leaves_out_what_is_off(composed):
    found = steps(composed("quantize=none", "model=resnet8"), Path())
    assert list(found) == ["train", "prune"]
    assert list(steps(composed("stage.steps.train=null", "model=resnet8"), Path())) == ["prune", "qat"]


# As a user writes them, for one target or another.
OWN = (
    "stage.steps.look={after: train, stage: sensitivity, budgets: [score]}",
    "stage.steps.choose={after: train, stage: allocate, groups: [prune, quantize], init_from: look}",
    "stage.steps.prune.rules=choose",
    "stage.steps.qat.rules=choose",
    "stage.steps.page={after: qat, stage: report}",
)


def test_a_step_follows_the_one_that_it_names(composed):
    found = steps(composed(MODEL, *OWN, "budget.score=0.01"), Path("run"))
    assert list(found) == ["train", "look", "choose", "prune", "qat", "page"]
    assert [step.directory.name for step in found.values()][:3] == ["1_train", "2_look", "3_choose"]


def test_a_step_begins_from_the_one_that_it_names_or_from_the_newest_network(composed):
    found = steps(composed(MODEL, *OWN, "budget.score=0.01"), Path("run"))
    begins = {name: step.config.init_from for name, step in found.items()}
    assert begins == {
        "train": None,
        "look": "run/1_train",
        "choose": "run/2_look",
        "prune": "run/1_train",
        "qat": "run/4_prune",
        "page": "run/5_qat",
    }
    assert found["qat"].config.distill.teacher.weights == "run/1_train"
    assert [name for name, step in found.items() if step.makes_network] == ["train", "prune", "qat"]
    assert found["page"].config.runs == "run/[0-9]*_*"


def test_a_step_is_left_out_without_its_target_and_what_names_it_does_without(composed):
    found = steps(composed(MODEL, *OWN, "budget.math_ops=100"), Path("run"))
    assert list(found) == ["train", "choose", "prune", "qat", "page"]
    assert found["choose"].config.init_from == "run/1_train"


def test_what_trains_nothing_has_numbers_where_the_pipeline_has_null(composed):
    found = steps(composed(MODEL, *OWN, "budget.score=0.01", "trainer.epochs=3"), Path())
    assert [step.config.trainer.epochs for step in found.values()] == [3] * 6
    found = steps(composed(MODEL, *OWN, "budget.score=0.01"), Path())
    assert found["look"].config.optim.lr == 0.1


def test_rules_take_the_place_of_a_group_or_switch_it_off(composed, tmp_path):
    found = steps(composed(MODEL, *OWN, "budget.score=0.01"), tmp_path)
    file = rule_file(found["choose"].directory, "quantize")
    file.parent.mkdir(parents=True)
    file.write_text("weight_bits: 5\n")
    assert not found["prune"].take_rules()
    assert found["prune"].config.prune is None
    assert found["qat"].take_rules()
    assert found["qat"].config.quantize == {"weight_bits": 5}
    assert found["train"].take_rules()


@pytest.mark.parametrize("key", ["after", "rules", "init_from"])
def test_a_step_that_is_not_there_is_named(mistake, key):
    arguments = ("stage.steps.a={stage: export, after: train}", f"stage.steps.a.{key}=trian")
    said = mistake(MODEL, "data=digits", *arguments)
    assert f"stage.steps.a.{key}=trian: no such step before it; did you mean train?" in said


def test_steps_that_wait_for_each_other_are_named():
    with pytest.raises(UserError, match=r"stage\.steps\.a\.after=b: no such step before it"):
        in_order({"a": {"after": "b"}, "b": {"after": "a"}})


def test_a_step_cannot_begin_from_a_later_one(mistake):
    said = mistake(MODEL, "data=digits", "stage.steps.prune.init_from=qat")
    assert "stage.steps.prune.init_from=qat: no such step before it" in said
