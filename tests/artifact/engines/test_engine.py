"""What every engine has: the table of engines keeps the promise of the protocol."""

import pytest

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.artifact.engines.known import ALL
from micronet_cli.data.protocol import missing_members


@pytest.mark.parametrize("engine", ALL, ids=lambda engine: engine.name)
def test_every_engine_has_all_members(engine):
    assert not missing_members(engine, Engine)
