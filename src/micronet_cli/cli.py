"""The ``micronet`` command: Hydra composes, ``stages.job.execute`` runs, mistakes are answered in a few lines."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from micronet_cli.errors import Interrupted, UserError, near_misses
from micronet_cli.paths import CONF

MAX_LINES = 15
USAGE = """\
micronet: compress image classifiers and prove it.

  micronet                                     train, prune, quantise and score on the embedded digits
  micronet stage=train model=resnet20 data=cifar10 data.root=DIR
  micronet stage=prune init_from=RUN prune.rules.conv.sparsity=0.7
  micronet stage=qat   init_from=RUN quantize=w4a4 distill=soft_targets \\
                       distill.teacher.model=NAME distill.teacher.weights=FILE
  micronet stage=eval  init_from=RUN
  micronet stage=score init_from=RUN           without init_from: what would this recipe score?
  micronet -m stage=prune init_from=RUN prune.rules.conv.sparsity=0.5,0.6,0.7

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
    if {"-h", "--help"} & set(arguments):
        print(usage(), end="")
        return
    debug = "debug=true" in [a.lstrip("+").lower() for a in arguments]
    try:
        completing = {"-sc", "--shell-completion", "--shell_completion"} & set(arguments)
        run_hydra(arguments if completing else [free_key(a) for a in arguments])
    except (UserError, Interrupted, KeyboardInterrupt) as error:
        answer(error, debug)
    except Exception as error:
        if not type(error).__module__.startswith(("hydra.", "omegaconf.")):
            raise
        fail(explain(error), debug)


def run_hydra(arguments: list[str]) -> None:
    """Compose and run, once or as a sweep; errors come out as they are."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from micronet_cli.search_path import register

    arguments, user = take_config_dir(arguments)
    register(user)
    # Hydra's own error report hides the exception type and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if os.environ.get("RANK", "0") != "0":
        # One process of a torchrun writes; the others only compute.
        arguments = [*arguments, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    saved, sys.argv = sys.argv, ["micronet", *arguments]
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    GlobalHydra.instance().clear()
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    finally:
        sys.argv = saved
        signal.signal(signal.SIGTERM, terminated)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt  # as Ctrl-C does


def task(config: Any) -> float | None:
    """One job; a sweep's objective is top1."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from micronet_cli.stages.job import execute

    hydra_config = HydraConfig.get()
    overrides = [override.lstrip("+") for override in hydra_config.overrides.task]
    try:
        return execute(config, Path(hydra_config.runtime.output_dir), overrides).get("top1")
    except (UserError, Interrupted) as error:
        if hydra_config.mode != RunMode.MULTIRUN:
            answer(error, config.debug)
        raise  # a sweep's other jobs go on


def take_config_dir(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--config-dir DIR``, and the directory.

    >>> take_config_dir(["stage=score", "--config-dir", "mine"])[0]
    ['stage=score']
    """
    for place, argument in enumerate(arguments):
        flag, equals, directory = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            taken = 1 if equals else 2
            value = directory if equals else "".join(arguments[place + 1 : place + 2])
            return arguments[:place] + arguments[place + taken :], Path(value).expanduser()
    return arguments, None


def free_key(argument: str) -> str:
    """``key=value`` as ``++key=value``: rules can be added, and unknown keys reach the config check, which knows more.

    A rule's regular expression is quoted, for Hydra reads brackets and commas as its own.

    >>> free_key("trainer.epochs=3"), free_key("stage=prune"), free_key("hydra.run.dir=x"), free_key("-m")
    ('++trainer.epochs=3', 'stage=prune', 'hydra.run.dir=x', '-m')
    >>> free_key("prune.rules.stem.match={stem}|fc")
    "++prune.rules.stem.match='{stem}|fc'"
    """
    key, equals, value = argument.partition("=")
    if key.endswith(".match") and value[:1] not in ("'", '"'):
        argument = f"{key}='{value}'"
    if not equals or key[:1] in ("-", "+", "~") or "/" in key or key.split(".")[0] == "hydra":
        return argument
    return argument if key.split("@")[0] in group_names() else f"++{argument}"


def group_names() -> list[str]:
    """Config groups, by the packaged directories."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def usage() -> str:
    """The help text, with the groups' options as they are on the disk."""
    lines = []
    for group in (g for g in group_names() if g != "hydra"):
        root = CONF / group
        options = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
        lines.append(f"  {group:<11}{'  '.join(options)}")
    return USAGE.format(groups="\n".join(lines))


def explain(error: Exception) -> str:
    """Hydra's message in a line or two, with near misses."""
    from hydra.errors import MissingConfigException

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            group, _, option = link.missing_cfg_file.rpartition("/")
            options = list(link.options or [])
            listed = f" (there are {', '.join(options)})" if options else ""
            return f"{group or 'config'}={option}: no such option{near_misses(option, options)}{listed}"
    return "\n".join(line for line in str(error).splitlines() if line.strip())


def answer(error: BaseException, debug: bool) -> NoReturn:
    """Say what an expected end of a run is, and exit."""
    if isinstance(error, UserError):
        fail(str(error), debug)
    print(f"micronet: {str(error) or 'interrupted'}", file=sys.stderr)
    raise SystemExit(130) from None


def fail(message: str, debug: bool) -> NoReturn:
    """Print a user's mistake and exit with 2; ``debug`` shows the traceback as well."""
    if debug:
        import traceback

        traceback.print_exc()
    lines = list(dict.fromkeys(message.splitlines()))
    if len(lines) > MAX_LINES - 2:
        lines = [*lines[: MAX_LINES - 3], f"and {len(lines) - MAX_LINES + 3} more"]
    one = len(lines) == 1
    print(f"micronet: {lines[0]}" if one else "\n  ".join(["micronet: mistakes:", *lines]), file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()
