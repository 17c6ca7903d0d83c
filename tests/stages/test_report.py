"""Guards ``stage=report``: the runs that it asks for, the page that it writes, and the files that it could not read."""

import importlib.util
import json

import pytest

pytest.importorskip("plotly")


def test_report_counts_what_it_read_and_names_what_it_could_not(micronet, tmp_path, capsys):
    for name, text in (("good", json.dumps({"stage": "eval", "status": "completed"})), ("bad", "{")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.json").write_text(text)
    run = micronet("stage=report", f"runs={tmp_path}/runs/**")
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["runs"], metrics["unreadable"]) == (1, 1)
    said = capsys.readouterr().out
    assert "bad/metrics.json: " in said
    assert f"1 runs: {run / 'report.html'}" in said


def test_missing_plotly_is_answered_with_the_extra(mistake, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "stage=report: plotly is not installed; pip install 'micronet-cli[report]'" in mistake("stage=report")
