"""Settings from a YAML file, under what the command line says."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from srs.commands._errors import one_line_errors, parse

Settings = TypeVar("Settings")


def parse_over_file(settings: type[Settings], command: str, description: str) -> Settings:
    """Read the command line over the file that `--config` names, or over the run's own where `--resume` goes on.

    The file holds settings by name, as the `config.yaml` of a run does. What it says is checked as if flags had said
    it; flags win.
    """
    args = sys.argv[1:]
    with one_line_errors(command):
        file = _value(args, "--config")
        out = _value(args, "--out")
        if file is None and "--resume" in args and out is not None and (Path(out) / "config.yaml").is_file():
            file = str(Path(out) / "config.yaml")
        given = [] if file is None else _flags(settings, Path(file), args)
    default = parse(settings, f"{command}: {file}", description, args=given) if given else None
    return parse(settings, command, description, default=default, args=args)


def _value(args: list[str], flag: str) -> str | None:
    """Return the value of the last such flag."""
    found = None
    for position, arg in enumerate(args):
        if arg == flag and position + 1 < len(args):
            found = args[position + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.removeprefix(f"{flag}=")
    return found


def _flags(settings: Any, file: Path, args: list[str]) -> list[str]:
    """Return the command line that would say what the file says, but for lists that these arguments give anew."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"--config {file}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {file}: cannot be read as YAML; give lines such as n: 1000") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {file}: holds no settings; give lines such as n: 1000")
    known = [field.name for field in fields(settings) if field.name != "config"]
    flags = []
    for name, value in content.items():
        if name not in known:
            raise ValueError(f"--config {file}: {name} is no setting; there are {', '.join(known)}")
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, list):
            anew = any(arg == flag or arg.startswith(f"{flag}=") for arg in args)
            flags += [] if anew else [f"{flag}={part}" for part in value]
        elif value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags.append(f"{flag}={value}")
    return flags
