"""Guards the order in which config options are found: the user's, the packaged ones, any timm name as a model."""

from typing import NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from micronet_cli.command.search_path import MicronetSearchPath, TimmConfigSource, register
from micronet_cli.errors import UserError
from micronet_cli.overrides import group_names
from micronet_cli.paths import CONF, CONFIG_DIRECTORIES


@pytest.fixture
def user(tmp_path):
    """A user's config directory with two options; the packaged directory alone is back after the test."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "resnet50.yaml").write_text("_target_: micronet_cli.models.model.Model\nname: mine\n")
    (tmp_path / "own").mkdir()
    yield tmp_path
    register()


@pytest.fixture
def source():
    return TimmConfigSource("timm", "timm://")


class Asked(NamedTuple):
    path: str
    is_config: bool


CONFIGS = {
    "a timm name": Asked("model/resnet50", True),
    "a name with signs": Asked("model/hf-hub:timm/x.y", True),
    "the group itself": Asked("model/", False),
    "a group without a slash": Asked("model", False),
    "another group": Asked("data/resnet50", False),
    "the top": Asked("config", False),
}


@pytest.mark.parametrize("asked", CONFIGS.values(), ids=CONFIGS.keys())
def test_any_name_below_model_is_a_config(source, asked):
    assert source.is_config(asked.path) is asked.is_config


@pytest.mark.parametrize("path", ["model/resnet50", "model/resnet50.yaml"])
def test_timm_name_is_the_model_group_for_it(source, path):
    found = source.load_config(path)
    packaged = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "timm.yaml"))
    assert OmegaConf.to_container(found.config) == packaged | {"name": "resnet50"}
    assert (found.provider, found.path) == ("timm", "timm://")


def test_timm_names_are_neither_listed_nor_groups(source):
    assert source.scheme() == "timm"
    assert source.available()
    assert not source.is_group("model")
    assert source.list("model", ObjectType.CONFIG) == []


def test_timm_name_is_composed(composed):
    assert composed("model=vit_tiny_patch16_224").model.name == "vit_tiny_patch16_224"


def test_user_s_option_stands_before_timm_and_the_packaged(user, composed):
    register(user)
    (user / "optim").mkdir()
    (user / "optim" / "sgd.yaml").write_text("mine: 1\n")
    assert MicronetSearchPath.user == user
    # A search path is fixed where Hydra begins, so it begins again.
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["model=resnet50", "optim=sgd"])
    assert config.model.name == "mine"
    assert config.optim.mine == 1


def test_user_s_directory_has_groups_until_it_is_taken_back(user):
    register(user)
    assert [user, CONF] == CONFIG_DIRECTORIES
    assert "own" in group_names()
    register()
    assert CONFIG_DIRECTORIES == [CONF]
    assert "own" not in group_names()
    assert MicronetSearchPath.user is None


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_config_dir_must_be_a_directory(tmp_path, kind):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        register(tmp_path / kind)
    assert str(caught.value) == f"--config-dir {tmp_path / kind}: no such directory"
    assert CONFIG_DIRECTORIES == [CONF]
