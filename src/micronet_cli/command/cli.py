"""The ``micronet`` command: Hydra composes, ``stages.execute.execute`` runs, mistakes are answered in a few lines."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, NoReturn

from micronet_cli.allocator import use_huge_pages
from micronet_cli.command.arguments import check, complete_flag, parsed, switches_first, take_config_dir
from micronet_cli.console import go_on_unread
from micronet_cli.dotted_path import make_working_directory_importable
from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.housekeeping import collected_later, ends_with, leave_memory_to_the_system
from micronet_cli.overrides import explain, free_key, group_names, options_of
from micronet_cli.paths import CONF, use_config_directory
from micronet_cli.threads import spin_briefly

MAX_LINES = 15
HELP = {"-h", "--help"}
COMPLETION = {"-sc", "--shell-completion", "--shell_completion"}
USAGE = """\
micronet: compress image classifiers and prove it.

{stages}

Groups, chosen with GROUP=OPTION; any timm name is a model:
{groups}

  KEY=VALUE changes a setting; --cfg job shows them all; -m sweeps over comma-separated values.
  resume=true hydra.run.dir=RUN goes on with a run; debug=true shows tracebacks.
  --config-dir DIR adds a directory of your own options; they win over the packaged ones of the same name.
  --hydra-help tells of Hydra's own flags; eval "$(micronet -sc install=bash)" installs completion.
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point. Without ``argv`` it runs the command line of the process, which ends with it.

    Raises:
        SystemExit: 2 a user's mistake, 130 interrupted, 1 anything else that failed.
    """
    if argv is not None:
        run(argv)
        return
    leave_memory_to_the_system()
    try:
        run(sys.argv[1:])
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            ends_with(ended.code or 0)
        raise
    ends_with(0)


def run(arguments: list[str]) -> None:
    """Do what was typed, and answer what goes wrong.

    Raises:
        SystemExit: as ``main``.
    """
    if "--version" in arguments:
        from importlib.metadata import version  # slow to import, and of no use anywhere else here

        print(f"micronet {version('micronet-cli')}")
        return
    go_on_unread()
    use_huge_pages()
    spin_briefly()
    make_working_directory_importable()
    debug = "debug=true" in [argument.lstrip("+").lower() for argument in arguments]
    try:
        if not HELP.isdisjoint(arguments):
            _, user = take_config_dir(arguments)
            use_config_directory(user)
            print(usage(), end="")
        elif COMPLETION.isdisjoint(arguments):
            with collected_later():
                run_hydra(arguments)
        elif not complete_flag(os.environ.get("COMP_LINE", "")):
            complete(arguments)
    except (UserError, Interrupted, KeyboardInterrupt) as error:
        answer(error, debug)
    except Exception as error:
        if type(error).__module__.startswith(("hydra.", "omegaconf.")):
            fail(explain(error), debug)
        if not isinstance(error, OSError) or _task_had_begun(error):
            raise
        fail(f"hydra.run.dir={error.filename}: no directory can be there ({error.strerror})", debug)


def _task_had_begun(error: Exception) -> bool:
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return task.__code__ in codes


def complete(arguments: list[str]) -> None:
    """Answer a shell, which waits for words and would show anything else beside the prompt."""
    with suppress(SystemExit), redirect_stderr(io.StringIO()):
        run_hydra(arguments, completing=True)


def run_hydra(arguments: list[str], completing: bool = False) -> None:
    """Compose and run, once or as a sweep, or complete what a shell asks for; errors come out as they are."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from micronet_cli.command.one_composition import composed_once
    from micronet_cli.command.search_path import register
    from micronet_cli.command.show import show
    from micronet_cli.command.sweeps import reported

    arguments, user = take_config_dir(arguments)
    register(user)
    arguments = switches_first(arguments)
    check(arguments)
    if not completing:
        arguments = [free_key(argument) for argument in arguments]
        asked = parsed(arguments)
        if asked.cfg == "job":
            GlobalHydra.instance().clear()
            show(asked)
            return
    # Hydra's own error report hides the exception type and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if os.environ.get("RANK", "0") != "0":
        # One process of a torchrun writes; the others only compute.
        arguments = [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    argv_before = sys.argv
    sys.argv = ["micronet", *arguments]
    terminated_before = signal.signal(signal.SIGTERM, _interrupt)
    GlobalHydra.instance().clear()
    decorate = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    try:
        with reported(), composed_once():
            decorate(task)()
    finally:
        sys.argv = argv_before
        signal.signal(signal.SIGTERM, terminated_before)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt  # as Ctrl-C does


def task(config: Any) -> float | None:
    """One job; a sweep's objective is top1."""
    from hydra.core.hydra_config import HydraConfig

    from micronet_cli.command.refused import withdrawn_if_refused
    from micronet_cli.command.sweeps import Sweep
    from micronet_cli.passwords import without_password
    from micronet_cli.runs.outcomes import Outcome
    from micronet_cli.stages.execute import execute, execute_missing

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    # A launcher may run the job in a process that knows nothing of the command line.
    make_working_directory_importable()
    use_config_directory(_user_directory(hydra_config.runtime.config_sources))
    # What an environment variable brings has been put in by now, a password too.
    overrides = [without_password(override.lstrip("+")) for override in hydra_config.overrides.task]
    sweep = Sweep.current
    if sweep is None or "RANK" in os.environ:
        try:
            with withdrawn_if_refused():
                return execute(config, directory, overrides).get("top1")
        except (UserError, Interrupted) as error:
            answer(error, config.debug)  # before Hydra adds its own words

    def work(again: bool) -> dict[str, Any]:
        config.resume = config.resume or again
        return execute_missing(config, directory, overrides)

    told = [override for override in overrides if not override.startswith("resume=")]
    return sweep.run(Outcome(hydra_config.job.num, told, str(directory)), work)


def _user_directory(config_sources: Iterable[Any]) -> Path | None:
    """The user's own config directory among those that Hydra composed from."""
    for source in config_sources:
        if source.provider == "user":
            return Path(source.path)
    return None


def usage() -> str:
    """The help text, with the stages and the groups' options as they are on the disk."""
    stages = []
    for _, path in sorted(options_of("stage").items()):
        stages.append(f"  {usage_line(path)}")
    groups = []
    for group in group_names():
        if group != "hydra":
            options = "  ".join(sorted(options_of(group)))
            groups.append(f"  {group:<13}{options}")
    return USAGE.format(stages="\n".join(stages), groups="\n".join(groups))


def usage_line(path: Path) -> str:
    """How to run the stage of this file: its first comment that is not Hydra's ``@package``; else the bare command."""
    for line in path.read_text().splitlines():
        comment = line.removeprefix("#").strip()
        if line.startswith("#") and not comment.startswith("@package"):
            return comment
    return f"micronet stage={path.stem}"


def answer(error: BaseException, debug: bool) -> NoReturn:
    """Say what an expected end of a run is, and exit."""
    if isinstance(error, JobsFailed):
        fail(str(error), debug, error.heading, error.exit_code)
    if isinstance(error, UserError):
        fail(str(error), debug)
    print(f"micronet: {str(error) or 'interrupted'}", file=sys.stderr)
    raise SystemExit(130) from None


def fail(message: str, debug: bool, heading: str | None = None, exit_code: int = 2) -> NoReturn:
    """Print what went wrong, a line each below ``heading``, and exit; ``debug`` shows the traceback as well."""
    if debug:
        traceback.print_exc()
    lines = list(dict.fromkeys(message.splitlines()))
    if len(lines) > MAX_LINES - 2:
        shown = lines[: MAX_LINES - 3]
        lines = [*shown, f"and {len(lines) - len(shown)} more"]
    if heading is None and len(lines) == 1:
        print(f"micronet: {lines[0]}", file=sys.stderr)
    else:
        head = f"micronet: {heading or 'mistakes:'}"
        print("\n  ".join([head, *lines]), file=sys.stderr)
    raise SystemExit(exit_code) from None


if __name__ == "__main__":
    main()
