"""``key=value`` as Hydra wants it, from what a user types."""

from micronet_cli.paths import CONF


def group_names() -> list[str]:
    """Config groups, by the packaged directories."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


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
