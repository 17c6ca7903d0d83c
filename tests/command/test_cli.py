"""Guards the command line's answers: help, completion, mistakes."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from micronet_cli.command.arguments import take_config_dir
from micronet_cli.command.cli import main
from micronet_cli.errors import UserError
from tests.conftest import TINY, metrics_of


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout


def test_help_lists_the_groups_and_imports_nothing_large():
    said = run_python(
        "import sys; from micronet_cli.command.cli import main; main(['--help']);"
        "print({'torch', 'hydra', 'omegaconf', 'yaml'} & sys.modules.keys())"
    )
    assert said.splitlines()[-1] == "set()"
    assert "w4a4" in said
    assert "soft_targets" in said


def test_completion_imports_no_torch():
    code = (
        "import sys, os; os.environ['COMP_LINE'] = 'micronet quantize='; os.environ['COMP_POINT'] = '18'\n"
        "from micronet_cli.command.cli import main; main(['-sc', 'query=bash']); print('torch' in sys.modules)"
    )
    said = run_python(code).split()
    assert said[-1] == "False"
    assert "quantize=w4a4" in said


class Mistake(NamedTuple):
    """Arguments as typed, and part of what they are answered."""

    arguments: tuple[str, ...]
    said: str


MISTAKES = {
    "key": Mistake(("stage=train", "trainer.epoch=1"), "trainer.epoch: unknown key; did you mean epochs"),
    "stage": Mistake(("stage=prunne",), "stage=prunne: no such option; did you mean prune"),
    "value out of range": Mistake(
        ("stage=prune", "prune.rules.conv.sparsity=1.5"), "prune.rules.conv.sparsity=1.5: must be a fraction"
    ),
    "model": Mistake(("stage=train", "model=resnet2O"), "model=resnet2O: no such network; did you mean resnet"),
    "path of data": Mistake(
        ("stage=train", "data=imagefolder", "data.train=/nowhere"), "data.train='/nowhere': no such file"
    ),
    "no path of data": Mistake(("stage=train", "data=imagefolder"), "data.train: missing"),
    "start": Mistake(("stage=eval", "init_from=/nowhere"), "init_from='/nowhere': no such file or directory"),
    "start with an equals sign": Mistake(
        ("stage=eval", "init_from=/no/lr=0.1"), "init_from='/no/lr=0.1': no such file"
    ),
    "no teacher": Mistake(("stage=qat", "distill=soft_targets"), "distill.teacher.model=None: a teacher is needed"),
    "teacher": Mistake(
        ("stage=qat", "distill=soft_targets", "distill.teacher.model=resnet2O"), "distill.teacher.model=resnet2O: no"
    ),
    "grammar": Mistake(
        ("stage=train", "trainer.epochs=[1"), "trainer.epochs=[1: no viable alternative at input '[1'; quote a value"
    ),
    "null for a group": Mistake(("prune=null",), "prune=null: a group takes an option, as prune=none"),
    "seed": Mistake(("stage=train", "seed=-1"), "seed=-1: must be at least 0"),
    "function": Mistake(
        ("stage=prune", "prune.importance=micronet_cli.functional.pruning.magnitud"), "did you mean magnitude"
    ),
    "class for a function": Mistake(
        ("stage=prune", "prune.schedule=micronet_cli.functional.schedules.AGP"), "prune.schedule=AGP: a class must"
    ),
    "key of a stage": Mistake(
        ("stage=shrink", "stage.multipel=16"), "stage.multipel: unknown key; did you mean multiple"
    ),
    "key of a step": Mistake(("stage.steps.qat.group=[]",), "stage.steps.qat.group: unknown key; did you mean groups"),
    "key of a step's settings": Mistake(
        ("stage.steps.qat.settings.trainer.epoch=1",), "stage.steps.qat.settings.trainer.epoch: unknown key"
    ),
    "size of a network for one size": Mistake(
        ("stage=score", "model=vit_tiny_patch16_224", "data.input_size=64"), "model.args.img_size=64"
    ),
    "device": Mistake(("stage=train", "trainer.device=cuda:9"), "trainer.device='cuda:9': must be auto or cpu or cuda"),
    "no data set there": Mistake(
        ("stage=train", "data=cifar10", "data.root=/nowhere"), "data.root='/nowhere': no CIFAR-10 there"
    ),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_answered_with_its_path(mistake, case):
    assert case.said in mistake(*case.arguments)


def test_rule_that_matches_nothing_names_layers(mistake):
    said = mistake("stage=prune", *TINY, "prune.rules.extra.match=layer1.0.conv3", "prune.rules.extra.sparsity=0.5")
    assert "prune.rules.extra.match='layer1.0.conv3': matches no layer" in said
    assert "layer1.0.conv1" in said


def test_rule_that_later_rules_empty_is_an_error(mistake):
    said = mistake("stage=prune", *TINY, "prune.rules.all.match=.*", "prune.rules.all.sparsity=0.5")
    assert "prune.rules.conv: left with no layer" in said


OFFLINE = {
    "timm's weights": Mistake(("model=mobilenetv3_small_050", "model.pretrained=true"), "model.pretrained=true"),
    "a network": Mistake(("model=hf-hub:timm/nope",), "model=hf-hub:timm/nope: it cannot be had from the hub"),
}


@pytest.mark.parametrize("case", OFFLINE.values(), ids=OFFLINE.keys())
def test_offline_hub_is_answered(mistake, monkeypatch, case):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # and back after the test
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    said = mistake("stage=eval", *case.arguments, "data=digits")
    assert case.said in said
    assert "model.weights=<file>" in said


def test_truncated_checkpoint_is_answered(mistake, tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"x": torch.zeros(1000)}, whole, metadata={"micronet": "{}"})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:500])
    assert "truncated" in mistake("stage=eval", f"init_from={cut}")


def test_weights_that_do_not_fit_are_reported_strictly(mistake, tmp_path):
    torch.save(
        {"state_dict": {"module.conv1.weight": torch.zeros(16, 3, 5, 5), "extra": torch.ones(1)}}, tmp_path / "w.pth"
    )
    said = mistake("stage=eval", *TINY, f"model.weights={tmp_path / 'w.pth'}")
    assert "missing: bn1.bias" in said
    assert "1 unexpected: extra" in said
    assert "conv1.weight (16x3x5x5 in the file, 16x3x3x3 in the network)" in said


def test_debug_shows_the_traceback(micronet, capsys):
    with pytest.raises(SystemExit):
        micronet("stage=train", "trainer.epoch=1", "debug=true")
    assert "Traceback" in capsys.readouterr().err


def test_a_mistake_leaves_an_earlier_run_alone(micronet, mistake, tmp_path):
    run = micronet("stage=score", *TINY)
    before = metrics_of(run)
    with pytest.raises(SystemExit):
        micronet("stage=score", "model=nonsense", directory=run)
    assert metrics_of(run) == before


def test_a_file_in_the_directory_s_place_is_a_mistake(mistake, tmp_path):
    (tmp_path / "file").touch()
    assert f"hydra.run.dir={tmp_path}/file: " in mistake("stage=score", *TINY, directory=tmp_path / "file")


def test_config_dir_wants_a_directory():
    with pytest.raises(UserError, match=r"--config-dir: must be followed by a directory"):
        take_config_dir(["stage=score", "--config-dir"])


def test_overrides_may_stand_on_both_sides_of_a_flag(micronet):
    run = micronet("stage=score", *TINY, "-m", "seed=1")
    assert metrics_of(run / "0")["seed"] == 1


def test_version_is_the_package_s(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("micronet ")


def test_script_is_installed():
    script = os.path.join(os.path.dirname(sys.executable), "micronet")
    said = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith("micronet: compress")
