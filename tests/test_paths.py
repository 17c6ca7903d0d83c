"""Where the configs are, in a checkout as in a wheel."""

from micronet_cli.paths import CONF


def test_the_packaged_configs_are_found():
    assert (CONF / "config.yaml").is_file()
    assert (CONF / "stage" / "train.yaml").is_file()
