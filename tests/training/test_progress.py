"""Where a training is: in the log, where there is no terminal for a bar."""

import logging

from micronet_cli.training.progress import Progress

FIGURES = {"loss": 0.5, "top1": 75.0, "images_per_second": 20.0}


def test_without_a_terminal_a_line_says_how_long_the_rest_takes(caplog):
    caplog.set_level(logging.INFO)
    progress = Progress(step=2, total=12, images_per_step=4)
    assert progress.bar.disable
    progress.show(7, FIGURES)
    assert "step 7/12: loss 0.5000, top-1 75.0 %, 20 images/s, 1 s left" in caplog.text


def test_on_a_terminal_the_bar_shows_the_figures_and_the_log_does_not(monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(step=2, total=12, images_per_step=4)
    with progress.logging(), progress.bar:
        progress.advance()
        progress.show(3, FIGURES)
        assert progress.bar.n == 3
        assert progress.bar.postfix == "img_s=20, loss=0.500, top1=75.0"  # tqdm sorts them
    assert "images/s" not in caplog.text


def test_other_processes_show_no_bar(monkeypatch):
    monkeypatch.setattr("micronet_cli.training.progress.rank", lambda: 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert Progress(0, 1, 1).bar.disable
