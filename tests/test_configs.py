"""Guards every YAML of every group: it is composed, bound to signatures and built; mistakes are reported together."""

import inspect

import pytest

from micronet_cli.config import build, check_config
from micronet_cli.dotted_path import locate
from micronet_cli.errors import UserError
from micronet_cli.paths import CONF
from micronet_cli.stages import pipeline
from micronet_cli.stages.inherit import inherited
from micronet_cli.stages.pipeline_steps import steps

OPTIONS = [
    (group.name, path.relative_to(group).with_suffix("").as_posix())
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
    for path in sorted(group.rglob("*.yaml"))
]
NEEDED = {
    **dict.fromkeys(
        ("soft_targets", "decoupled", "hints"), ("distill.teacher.model=resnet56", "distill.teacher.weights=any")
    ),
    "timm": ("model.name=resnet20",),
    "webdataset": ("data.root=any",),
    "hf": ("data.dataset=hfds/any",),
    "auto": ("budget.score=0.001",),
}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_binds(composed, tmp_path, group, option):
    choice = f"+experiment={option}" if group == "experiment" else f"{group}={option}"
    needs_stage = [] if group in ("stage", "experiment") else ["stage=train"]
    config = inherited(composed(*needs_stage, choice, *NEEDED.get(option, ())))
    if config.stage.name == "pipeline":
        assert set(steps(config, tmp_path)) >= {"train", "prune", "qat"}
        pipeline.check(config)
        return
    built = check_config(config)
    assert built["trainer"] is not None
    if group in built:
        assert (built[group] is None) == (option == "none")


SHOWN = [
    (group, option) for group, option in OPTIONS if group in ("model", "data") and option not in ("auto", "no_images")
]


@pytest.mark.parametrize(("group", "option"), SHOWN)
def test_every_key_of_model_and_data_is_shown(composed, group, option):
    node = composed("stage=train", f"{group}={option}")[group]
    keys = set(inspect.signature(locate(node._target_, group)).parameters)
    assert set(node) - {"_target_"} == keys


@pytest.mark.parametrize("model", ["resnet8", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_every_key_of_a_timm_name_is_shown(composed, model):
    node = composed("stage=train", f"model={model}").model
    assert node == {
        "_target_": "micronet_cli.models.model.Model", "name": model, "weights": None, "pretrained": False,
        "ema": False, "num_classes": None, "args": None,
    }  # fmt: skip
    set_below = composed("stage=train", f"model={model}", "model.args.drop_rate=0.5").model
    assert set_below.args == {"drop_rate": 0.5}


def test_optional_groups_have_none():
    for group in ("prune", "quantize", "ptq", "distill", "logger"):
        assert (CONF / group / "none.yaml").is_file()


def test_all_mistakes_come_together(composed):
    config = composed(
        "stage=prune", "trainer.epoch=3", "prune.rules.conv.sparsity=1.5", "stag=x", "optim.lr=fast", "quantize.bits=3"
    )
    with pytest.raises(UserError) as caught:
        check_config(inherited(config))
    said = str(caught.value)
    assert "trainer.epoch: unknown key; did you mean epochs" in said
    assert "prune.rules.conv.sparsity=1.5: must be a fraction of zeros in [0, 1)" in said
    assert "stag: unknown key; did you mean stage" in said
    assert "optim.lr='fast': must be a number" in said
    assert "quantize.bits: quantize=none takes no keys" in said


def test_what_a_yaml_leaves_open_has_to_be_given(composed):
    with pytest.raises(UserError, match=r"data\.root: missing; give data\.root=<text>"):
        check_config(inherited(composed("stage=train", "data=webdataset")))


def test_rules_are_bound_to_their_dataclass(composed):
    config = inherited(composed("stage=prune", "prune.rules.stem.match=conv1", "prune.rules.stem.sparsity=0.3"))
    assert check_config(config)["prune"].rules["stem"].sparsity == 0.3


@pytest.mark.parametrize("match", ["{stem}", "(?!{stem}$).*", r"layer[12]\.\d{1,2}\..*", "'layer1.*'"])
def test_any_regular_expression_can_be_typed(composed, match):
    config = inherited(composed("stage=prune", f"prune.rules.mine.match={match}", "prune.rules.mine.sparsity=0.3"))
    assert check_config(config)["prune"].rules["mine"].match == match.strip("'")


def test_rule_without_match_is_named(composed):
    with pytest.raises(UserError, match=r"prune\.rules\.extra\.match: missing"):
        check_config(inherited(composed("stage=prune", "prune.rules.extra.sparsity=0.3")))


@pytest.mark.parametrize("path", ["os.system", "builtins.eval", "torch.load", "micronet_cli_evil.run"])
def test_targets_outside_the_allowed_packages_are_refused_in_files(path):
    for trust in ((), ("mypkg", "micronet")):
        with pytest.raises(UserError, match="not allowed in a file"):
            build({"_target_": path}, "prune", trust=trust)


@pytest.mark.parametrize("option", ["soft_targets", "decoupled", "hints"])
def test_every_distillation_has_the_same_teacher(composed, option):
    teacher = composed("stage=qat", f"distill={option}", *NEEDED[option]).distill.teacher
    assert set(teacher) == {"_target_", "model", "weights", "pretrained", "ema", "amp", "cache_mb"}
    assert teacher.cache_mb == 0
