"""Installed from a wheel, from another directory, without torch; and with a config directory of one's own."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import TINY, metrics_of

ROOT = Path(__file__).parents[1]
STAGES = sorted(path.stem for path in (ROOT / "conf" / "stage").glob("*.yaml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    where = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    command += ["-w", str(where), str(ROOT)]
    subprocess.run(command, check=True, timeout=120)
    return next(where.glob("*.whl"))


@pytest.fixture(scope="module")
def other_environment(wheel, tmp_path_factory):
    """A Python with the wheel, Hydra and nothing else."""
    where = tmp_path_factory.mktemp("other") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True, timeout=60)
    site = next(where.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    for name in ("hydra", "omegaconf", "antlr4", "yaml", "packaging"):
        found = importlib.util.find_spec(name).submodule_search_locations[0]
        (site / name).symlink_to(found)
    return where / "bin" / "python"


def run(python, directory, *arguments):
    code = "import sys; from micronet_cli.command.cli import main; main(sys.argv[1:])"
    command = [str(python), "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=directory, check=False)


def test_wheel_holds_every_config(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("micronet_cli/conf/")}
    assert held == {f"micronet_cli/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}


def test_wheel_holds_the_report_page(wheel):
    held = {name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if "/report_page/" in name}
    assert held == {"page.html", "style.css", "runs.js", "tables.js", "charts.js", "places.js"}


def test_other_environment_has_no_torch(other_environment, tmp_path):
    found = subprocess.run([other_environment, "-c", "import torch"], capture_output=True, check=False, cwd=tmp_path)
    assert b"No module named 'torch'" in found.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_composes_from_the_wheel(other_environment, tmp_path, stage):
    done = run(other_environment, tmp_path, "--cfg", "job", f"stage={stage}", "model=tf_efficientnet_b1")
    assert done.returncode == 0, done.stderr
    assert f"name: {stage}" in done.stdout
    assert "name: tf_efficientnet_b1" in done.stdout


def test_help_from_the_wheel(other_environment, tmp_path):
    assert "soft_targets" in run(other_environment, tmp_path, "--help").stdout


@pytest.fixture
def own(tmp_path):
    """A user's directory: a new option, and one that shadows a packaged one."""
    (tmp_path / "own" / "prune").mkdir(parents=True)
    packaged = (ROOT / "conf" / "prune" / "agp.yaml").read_text()
    (tmp_path / "own" / "prune" / "mine.yaml").write_text(packaged.replace("sparsity: 0.65", "sparsity: 0.25"))
    (tmp_path / "own" / "prune" / "agp.yaml").write_text(packaged.replace("sparsity: 0.65", "sparsity: 0.75"))
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("option", "sparsity"), [pytest.param("mine", 0.25, id="adds"), pytest.param("agp", 0.75, id="shadows")]
)
def test_own_directory_adds_and_shadows(micronet, own, option, sparsity):
    found = micronet("stage=score", *TINY, f"prune={option}", "--config-dir", str(own))
    assert metrics_of(found)["weight_sparsity"] == pytest.approx(sparsity, abs=0.01)


def test_own_directory_that_is_not_there(mistake):
    assert "--config-dir /nowhere: no such directory" in mistake("stage=score", "--config-dir", "/nowhere")
