"""Guards that a run composes its config once, and that what Hydra reads from it, run or sweep, stays Hydra's."""

import pytest
from hydra._internal import hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from micronet_cli.command.cli import main
from tests.conftest import metrics_of

SCORE = ("stage=score", "model=resnet8", "data=digits")


@pytest.fixture
def compositions(monkeypatch):
    """The run mode of each composition that Hydra is asked for."""
    modes = []
    compose = ConfigLoaderImpl.load_configuration

    def counted(loader, config_name, overrides, run_mode, *more):
        modes.append(run_mode.name)
        return compose(loader, config_name, overrides, run_mode, *more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return modes


def test_a_run_composes_once(micronet, compositions):
    run = micronet(*SCORE, "seed=3")
    assert compositions == ["RUN"]
    assert metrics_of(run)["seed"] == 3
    assert hydra_module.ConfigLoaderImpl is ConfigLoaderImpl


def test_each_job_of_a_sweep_gets_its_own_config(micronet):
    where = micronet("-m", *SCORE, "seed=3,4")
    assert [metrics_of(where / job)["seed"] for job in ("0", "1")] == [3, 4]


@pytest.mark.parametrize("seeds", ["seed=3", "seed=3,4"])
def test_a_file_may_say_that_it_is_a_sweep(micronet, tmp_path, seeds):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "swept.yaml").write_text("# @package _global_\nhydra:\n  mode: MULTIRUN\n")
    where = micronet("--config-dir", str(tmp_path / "conf"), *SCORE, "+experiment=swept", seeds)
    assert metrics_of(where / "0")["seed"] == 3
    assert (where / "1").is_dir() == ("," in seeds)


def test_commas_without_a_sweep_are_refused(compositions, capsys):
    with pytest.raises(SystemExit):
        main([*SCORE, "seed=3,4"])
    assert "seed=3,4" in capsys.readouterr().err
    assert compositions == ["RUN", "MULTIRUN", "RUN"]
