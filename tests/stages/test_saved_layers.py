"""Guards the finished layers in a run's directory: another round's are not gone back to."""

from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages.saved_layers import SavedLayers
from tests.conftest import history_of


class Work(SimpleNamespace):
    """Two layers, the first of which is done."""

    def __init__(self, done=1, names=("a", "b")):
        super().__init__(done=done, names=list(names))

    def state(self):
        return {"done": self.done, "names": self.names}

    def restore(self, state):
        if state["names"] != self.names:
            raise ValueError("it has other layers")
        self.done = state["done"]


def test_a_resumed_run_goes_back_to_its_own_round(tmp_path):
    first = Run(tmp_path)
    for step in range(1, 5):
        first.record({"kind": "layer", "step": step})
    SavedLayers(first, Work(), {"round": 1, "bits": {"a": (5, 8)}}).save()
    resumed = Run(tmp_path, resume=True)
    other, own = Work(done=0), Work(done=0)
    SavedLayers(resumed, other, {"round": 2, "bits": {"a": (6, 8)}}).restore()
    assert other.done == 0
    saved = SavedLayers(resumed, own, {"round": 1, "bits": {"a": (5, 8)}})
    saved.restore()
    assert (own.done, saved.first_step) == (1, 2)
    assert [line["step"] for line in history_of(tmp_path)] == [1, 2, 3]


def test_a_state_of_another_network_is_refused(tmp_path):
    SavedLayers(Run(tmp_path), Work(), {"round": 0}).save()
    with pytest.raises(UserError, match="it has other layers"):
        SavedLayers(Run(tmp_path, resume=True), Work(names="xy"), {"round": 0}).restore()
