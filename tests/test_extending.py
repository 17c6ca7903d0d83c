"""Guards the page on a package of one's own: its files, commands and Python run elsewhere as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import micronet_cli
from micronet_cli.command.cli import main
from micronet_cli.errors import UserError
from tests.conftest import metrics_of
from tests.test_docs import ROOT, code_blocks

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with the page's files, in which all its commands have run."""
    directory = tmp_path_factory.mktemp("own")
    for name, text in FILES.findall(PAGE):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(sys, "path", [*sys.path])
        for line in commands():
            main(line)
        yield directory
        for module in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
            del sys.modules[module]


def commands():
    """The page's command lines, as a shell would hand them over."""
    for language, code in code_blocks(PAGE):
        if language == "sh":
            yield from (shlex.split(line)[1:] for line in code.splitlines())


def test_every_command_of_the_page_completes(workplace):
    runs = ("dense", "pruned", "quantised", "eval", "export", "again", "score", "ptq", "pipeline", "count", "sweep/0")
    runs += ("sensitivity", "search", "bytes")
    for run in runs:
        assert metrics_of(workplace / "runs" / run)["status"] == "completed", run
    assert len(list(commands())) == len(runs)


def test_packed_network_is_the_one_that_was_trained(workplace):
    trained = metrics_of(workplace / "runs" / "quantised")
    again = metrics_of(workplace / "runs" / "again")
    assert again["top1"] == trained["top1"]
    assert again["micronet_score"] == pytest.approx(trained["micronet_score"])


def test_python_of_the_page_runs(workplace):
    blocks = [code for _, code in code_blocks(PAGE) if "micronet_cli.load" in code]
    assert len(blocks) == 2
    for code in blocks:
        exec(compile(code, "extending.md", "exec"), {})


def test_rule_set_of_the_page_counts_bytes(workplace):
    pruned = metrics_of(workplace / "runs" / "pruned")
    found = metrics_of(workplace / "runs" / "bytes")
    weights = 8 * 9 + 8 * 8 * 9 + 2 * 8  # of conv1, conv2 and fc
    assert found["storage_bytes"] == round(weights * (1 - pruned["weight_sparsity"]))
    assert found["math_ops"] == 0


def test_network_of_ones_own_loop_goes_on_on_the_command_line(workplace):
    test_python_of_the_page_runs(workplace)
    line = "--config-dir conf stage=score init_from=own.mnet data=mine trust=[mypkg] hydra.run.dir=runs/own"
    main(line.split())
    assert metrics_of(workplace / "runs" / "own")["weight_sparsity"] == 0


UNTRUSTED = {
    "checkpoint": ("runs/dense", "mypkg.parts.ThreeLayers", "best.safetensors"),
    "packed file": ("runs/export/model.mnet", "mypkg.parts.ThreeLayers", "model.mnet"),
}


@pytest.mark.parametrize(("path", "named", "file"), UNTRUSTED.values(), ids=UNTRUSTED.keys())
def test_a_file_alone_is_not_trusted(workplace, capsys, path, named, file):
    with pytest.raises(SystemExit) as caught:
        main(["stage=eval", f"init_from={path}", "hydra.run.dir=runs/refused"])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"'{named}' is not allowed in a file" in said
    assert path in said
    assert "trust=[mypkg]" in said

    with pytest.raises(UserError, match=rf"{file}.*trust=\[mypkg\]"):
        micronet_cli.load(path)


def test_images_decide_the_input_and_it_is_said(workplace):
    network = micronet_cli.load("runs/dense", trust=["mypkg"])
    assert network.pretrained_cfg["input_size"] == (1, 8, 8)
    said = (Path("runs/dense") / "micronet.log").read_text()
    assert "states no input: 1 x 8 x 8 from the images, mean and std of ImageNet" in said
