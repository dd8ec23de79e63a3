"""Settings from a YAML file, under what the command line says, and who has to name code of the user's own."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from srs.commands._cli import one_line_errors, parse
from srs.commands._help import takes_several
from srs.run.settings import BESIDE, EARLIER, OUT, CertifySettings
from srs.run.sources import asked_again, library, own_code, own_data

Settings = TypeVar("Settings", bound=CertifySettings)

#: Settings that may name a factory, `package.module:factory`, and what tells whether one does.
CODE = {"model": own_code, "arch": own_code, "dataset": own_data}

#: Settings of one start that could replace or change a run, or reach into the network: a file cannot say them.
_FLAGS_ONLY = frozenset({"resume", "overwrite", "download"})

#: Longest value that a flag takes.
_LONGEST = 4096


def parse_over_file(
    settings: type[Settings], command: str, description: str, groups: Mapping[str, Sequence[str]]
) -> Settings:
    """Read the command line over the file that `--config` names, or over the run's own where `--resume` goes on.

    The file holds settings by name, as the `config.yaml` of a run does. What it says is checked as if flags had said
    it; flags win. A factory of one's own counts only where flags name it, since building it runs its module.
    """
    args = sys.argv[1:]
    with one_line_errors(command):
        file = _value(args, "--config")
        given: list[str] = []
        if file is not None:
            given = _flags(settings, Path(file), f"--config {file}", "give lines such as n: 1000", args)
        elif "--resume" in args and (kept := _folder(args) / "config.yaml").is_file():
            file = str(kept)
            given = _flags(settings, Path(file), file, "restore it, or begin in another folder", args, EARLIER)
    if not given:
        return parse(settings, command, description, groups=groups, args=args)
    default = parse(settings, f"{command}: {file}", description, args=given)
    code = {name: getattr(default, name) for name, is_code in CODE.items() if is_code(getattr(default, name))}
    nothing: dict[str, Any] = dict.fromkeys(code)
    found = parse(settings, command, description, default=replace(default, **nothing), groups=groups, args=args)
    with one_line_errors(command):
        for name, stored in code.items():
            if getattr(found, name) is None:
                whose = "another library's model" if library(stored) else "code of your own"
                raise ValueError(
                    f"{file} names {whose}, which a file alone never runs: {asked_again(f'--{name} {stored}', stored)}"
                )
    return found


def _folder(args: list[str]) -> Path:
    """Return the folder of the run that a command line is about."""
    out, checkpoint, expert = (_value(args, flag) for flag in ("--out", "--checkpoint", "--expert"))
    if out is not None:
        return Path(out)
    beside = checkpoint or (expert or "").partition("=")[2]
    return Path(beside).parent / BESIDE if beside else OUT


def _value(args: list[str], flag: str) -> str | None:
    """Return the value of the last such flag."""
    found = None
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            found = args[position + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.removeprefix(f"{flag}=")
    return found


def _flags(
    settings: Any,
    file: Path,
    what: str,
    remedy: str,
    args: list[str],
    lacking: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the command line that would say what the file says, but for lists that these arguments give anew.

    `lacking` says what it means where the file does not name a setting.
    """
    from smoothing.reading import read_yaml

    if not file.exists():
        raise ValueError(f"{what}: no such file")
    try:
        content = read_yaml(file, remedy)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), what, 1)) from error
    known = [field.name for field in fields(settings) if field.name != "config"]
    kinds = get_type_hints(settings, include_extras=True)
    flags = []
    for name, value in {**(lacking or {}), **content}.items():
        if name not in known:
            raise ValueError(f"{what}: {name} is no setting; there are {', '.join(known)}")
        flag = f"--{name.replace('_', '-')}"
        if name in _FLAGS_ONLY and value is not False:
            raise ValueError(f"{what}: {name} is up to you at each start; say it on the command line, {flag}")
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, (dict, list)) or len(str(part)) > _LONGEST:
                raise ValueError(f"{what}: {name} is no single value; {remedy}")
        if isinstance(value, list):
            if not takes_several(kinds[name]):
                raise ValueError(f"{what}: {name} holds {str(value)[:60]}, and takes one value, no list; {remedy}")
            anew = any(arg == flag or arg.startswith(f"{flag}=") for arg in args)
            if any(str(part).startswith("-") for part in value):  # not to be taken for a flag
                raise ValueError(f"{what}: {name} holds {str(value)[:60]}; {remedy}")
            repeated = tyro.conf.UseAppendAction in getattr(kinds[name], "__metadata__", ())
            said = [f"{flag}={part}" for part in value] if repeated else [flag, *map(str, value)]
            flags += [] if anew or not value else said
        elif value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags.append(f"{flag}={value}")
    return flags


def find_in_current_folder(*names: str | None, args: Sequence[str] | None = None) -> None:
    """Let factories be imported from the current folder, as `python -m` would find them.

    Only those that the command line itself names: what a file says imports nothing, nor does it change where imports
    look.

    Parameters
    ----------
    *names : str or None
        Values of the flags that may name a factory.
    args : sequence of str, optional
        The command line. Default: that of this process.
    """
    given = sys.argv[1:] if args is None else args
    named = any(name and names_it(name, given) and own_data(name) and not library(name) for name in names)
    if named and "" not in sys.path:
        sys.path.insert(0, "")


def names_it(name: str, args: Sequence[str]) -> bool:
    """Whether a command line holds the value, as an argument of its own or after an equals sign."""
    return any(arg == name or (arg.startswith("--") and arg.partition("=")[2] == name) for arg in args)
