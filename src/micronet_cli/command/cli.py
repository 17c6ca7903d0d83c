"""The ``micronet`` command: Hydra composes, ``stages.execute.execute`` runs, mistakes are answered in a few lines."""

import os
import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from micronet_cli.allocator import use_huge_pages
from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.overrides import explain, free_key, group_names
from micronet_cli.paths import CONF, CONFIG_DIRECTORIES, use_config_directory

MAX_LINES = 15
SWITCHES = ("-m", "--multirun", "--resolve", "-r", "--run")
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
    """Entry point.

    Raises:
        SystemExit: 2 a user's mistake, 130 interrupted, 1 anything else that failed.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if "--version" in arguments:
        print(f"micronet {version('micronet-cli')}")
        return
    use_huge_pages()
    debug = "debug=true" in [a.lstrip("+").lower() for a in arguments]
    try:
        if {"-h", "--help"} & set(arguments):
            use_config_directory(take_config_dir(arguments)[1])
            print(usage(), end="")
            return
        completing = {"-sc", "--shell-completion", "--shell_completion"} & set(arguments)
        run_hydra(arguments, completing=bool(completing))
    except (UserError, Interrupted, KeyboardInterrupt) as error:
        answer(error, debug)
    except Exception as error:
        if type(error).__module__.startswith(("hydra.", "omegaconf.")):
            fail(explain(error), debug)
        begun = task.__code__ in (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
        if begun or not isinstance(error, OSError):
            raise
        fail(f"hydra.run.dir={error.filename}: no directory can be there ({error.strerror})", debug)


def run_hydra(arguments: list[str], completing: bool = False) -> None:
    """Compose and run, once or as a sweep, or complete what a shell asks for; errors come out as they are."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from micronet_cli.command.search_path import register
    from micronet_cli.command.sweeps import reported

    arguments, user = take_config_dir(arguments)
    register(user)
    if not completing:
        arguments = [free_key(argument) for argument in arguments]
    # argparse would not take overrides on both sides of a flag.
    arguments = sorted(arguments, key=lambda argument: argument not in SWITCHES)
    # Hydra's own error report hides the exception type and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if os.environ.get("RANK", "0") != "0":
        # One process of a torchrun writes; the others only compute.
        arguments = [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    saved, sys.argv = sys.argv, ["micronet", *arguments]
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    GlobalHydra.instance().clear()
    try:
        with reported():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    finally:
        sys.argv = saved
        signal.signal(signal.SIGTERM, terminated)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt  # as Ctrl-C does


def task(config: Any) -> float | None:
    """One job; a sweep's objective is top1."""
    from hydra.core.hydra_config import HydraConfig

    from micronet_cli.command.sweeps import Sweep
    from micronet_cli.runs.outcomes import Outcome
    from micronet_cli.stages.execute import execute, execute_missing

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    # A launcher may run the job in a process that knows nothing of the command line.
    own = [source.path for source in hydra_config.runtime.config_sources if source.provider == "user"]
    use_config_directory(Path(own[0]) if own else None)
    overrides = [override.lstrip("+") for override in hydra_config.overrides.task]
    if (sweep := Sweep.current) is not None and "RANK" not in os.environ:

        def work(again: bool) -> dict[str, Any]:
            config.resume = config.resume or again
            return execute_missing(config, directory, overrides)

        told = [override for override in overrides if not override.startswith("resume=")]
        return sweep.run(Outcome(hydra_config.job.num, told, str(directory)), work)
    try:
        return execute(config, directory, overrides).get("top1")
    except (UserError, Interrupted) as error:
        answer(error, config.debug)  # before Hydra adds its own words


def take_config_dir(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--config-dir DIR``, and the directory.

    >>> take_config_dir(["stage=score", "--config-dir", "mine"])[0]
    ['stage=score']

    Raises:
        UserError: the directory is missing.
    """
    for place, argument in enumerate(arguments):
        flag, equals, directory = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            if not equals and place + 1 == len(arguments):
                raise UserError(f"{flag}: must be followed by a directory")
            taken = 1 if equals else 2
            value = directory if equals else "".join(arguments[place + 1 : place + 2])
            return arguments[:place] + arguments[place + taken :], Path(value).expanduser()
    return arguments, None


def usage() -> str:
    """The help text, with the stages and the groups' options as they are on the disk."""
    stages = [f"  {usage_line(path)}" for _, path in sorted(options_of("stage").items())]
    groups = []
    for group in group_names():
        if group != "hydra":
            groups.append(f"  {group:<13}{'  '.join(sorted(options_of(group)))}")
    return USAGE.format(stages="\n".join(stages), groups="\n".join(groups))


def options_of(group: str) -> dict[str, Path]:
    """Option -> its file; the user's own stands before the packaged one of the same name."""
    found: dict[str, Path] = {}
    for directory in reversed(CONFIG_DIRECTORIES):
        root = directory / group
        for path in root.rglob("*.yaml"):
            found[path.relative_to(root).with_suffix("").as_posix()] = path
    return found


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
        lines = [*lines[: MAX_LINES - 3], f"and {len(lines) - MAX_LINES + 3} more"]
    if heading is None and len(lines) == 1:
        print(f"micronet: {lines[0]}", file=sys.stderr)
    else:
        print("\n  ".join([f"micronet: {heading or 'mistakes:'}", *lines]), file=sys.stderr)
    raise SystemExit(exit_code) from None


if __name__ == "__main__":
    main()
