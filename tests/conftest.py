"""What several tests share: a config as the command line composes it, the command line itself, small real images."""

import gc
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from micronet_cli.command.cli import free_key, main
from micronet_cli.command.search_path import register
from micronet_cli.paths import CONF

# resnet8 at 16 pixels: an epoch of digits in about a second.
TINY = ("model=resnet8", "data=digits", "data.input_size=16")


def pytest_collection_finish() -> None:
    """The modules, and the tests as they were collected, stay: half a million objects that no collection need look at.

    The garbage collector's whole rounds, half a second each with them, took a tenth of the tests' time.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 50)


def pytest_sessionfinish() -> None:
    """What is left at exit is freed as ever: extension modules report it as leaked otherwise."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Tiny networks gain nothing from more, and a busy machine would make them many times slower.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _absl_leaves_captured_output_open():
    # OpenVINO imports it where it is installed. It keeps the stderr of its import and closes it with the log handlers,
    # which each command makes anew: pytest's own stderr, while a test has another.
    if importlib.util.find_spec("absl") is not None:
        absl_logging = importlib.import_module("absl.logging")
        absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


@pytest.fixture(autouse=True, scope="module")
def _no_patch_stays():
    """A function is patched where it is used: a module imported while it is patched at home would keep the patch."""
    yield
    stayed = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "micronet_cli":
            continue
        for key, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__.startswith("tests."):
                stayed.append(f"{name}.{key}")
    assert stayed == []


@pytest.fixture
def composed():
    """Overrides as typed -> composed config."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: compose("config", [free_key(o) for o in overrides])


@pytest.fixture
def micronet(tmp_path):
    """The command line: arguments as typed -> the run's directory."""
    runs = iter(range(1000))

    def call(*arguments: str, directory: Path | None = None) -> Path:
        where = directory or tmp_path / f"run{next(runs)}"
        main([*arguments, f"hydra.run.dir={where}", f"hydra.sweep.dir={where}"])
        return where

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The run of a network after two epochs of digits, to begin from; it belongs to every test of the process."""
    where = tmp_path_factory.mktemp("trained") / "run"
    main(["stage=train", *TINY, "trainer.epochs=2", f"hydra.run.dir={where}"])
    return where


@pytest.fixture
def mistake(micronet, capsys):
    """Arguments as typed -> what stderr says, after checking the shape that every mistake's answer has."""

    def call(*arguments: str, directory: Path | None = None) -> str:
        with pytest.raises(SystemExit) as caught:
            micronet(*arguments, directory=directory)
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert len(said.splitlines()) <= 15
        assert "Traceback" not in said
        return said

    return call


@pytest.fixture
def image_folder(tmp_path):
    """24 JPEGs of 2 classes, learnable by colour: ``<root>/<class>/<number>.jpg``."""
    rng = np.random.default_rng(0)
    for label, colour in enumerate(("blue", "red")):
        folder = tmp_path / "images" / colour
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * label] += 100
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "images"


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def history_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
