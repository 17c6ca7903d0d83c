"""Which engines a user means: typos have near misses, a missing one a way out."""

import pytest

from micronet_cli.artifact.engines import known
from micronet_cli.artifact.engines.openvino import OpenVino
from micronet_cli.errors import UserError


def test_a_typo_has_near_misses():
    with pytest.raises(ValueError, match=r"engines=onnx_runtime: no engine.*did you mean onnxruntime"):
        known.check_names(["pytorch", "onnx_runtime"])


def test_a_missing_engine_is_left_out_or_an_error_where_it_is_named(monkeypatch):
    monkeypatch.setattr(OpenVino, "installed", lambda self: False)
    assert "openvino" not in [engine.name for engine in known.installed_engines()]
    with pytest.raises(UserError, match=r"latency.engines=openvino: not installed; install the extra `openvino`"):
        known.installed_engines(["onnxruntime", "openvino"])


def test_names_are_unique():
    assert len(known.ENGINES) == len(known.ALL)
