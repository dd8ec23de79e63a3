"""What --help prints: every flag once, in groups, with its value, what it does and its true default."""

import ast
import inspect
import shutil
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

#: Where texts begin, and the widest that a page gets: longer lines are hard to read.
_INDENT, _WIDEST = 24, 100

#: How values of a type are called; others stand for themselves.
_NAMES: Mapping[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}

_ALWAYS = (("-h, --help", "Show this and exit."), ("--version", "Show the version and exit."))

_COMPLETION = ("--tyro-print-completion {bash,zsh,fish}", "Print a script that completes flags in that shell.")


def asked_for(args: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return "-h" in args or "--help" in args


def help_of(
    settings: type[Any],
    command: str,
    description: str,
    *,
    default: Any = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    preset: str | None = None,
) -> str:
    """Return the help of a command.

    Parameters
    ----------
    settings : type
        A dataclass, one field for each flag, documented by the string below it.
    command, description : str
        How the command is called, and what it does.
    default : instance of settings, optional
        Whose values are the defaults: those of a preset or of a file.
    groups : mapping of str to sequence of str, optional
        Headings, and the fields below them. Default: one, of all fields.
    preset : str, optional
        The first argument, where that names a preset.
    """
    found = {field.name: field for field in fields(settings)}
    texts, kinds = _documented(settings), get_type_hints(settings, include_extras=True)
    positional = [name for name in found if _is_positional(kinds[name])]
    first = [command] if preset is None else [command, preset]
    named = " ".join([*first, *(_value(kinds[name]) for name in positional), "[flags]"])
    parts = [f"usage: {named}", _filled(description)]
    headed: dict[str, Sequence[str]] = {"arguments": positional} if positional else {}
    headed |= groups or {"flags": [name for name in found if name not in positional]}
    for heading, names in headed.items():
        parts.append(_section(heading, [_flag(found[name], kinds[name], texts[name], default) for name in names]))
    always = (*_ALWAYS, _COMPLETION) if preset is None else _ALWAYS
    parts.append(_section("always", always))
    return "\n\n".join(parts) + "\n"


def help_of_presets(command: str, description: str, about: Mapping[str, str]) -> str:
    """Return the help of a command whose first argument is a preset."""
    more = f"{command} PRESET --help lists the flags, with the preset's values."
    sections = _section("presets", about.items()), more, _section("always", (*_ALWAYS, _COMPLETION))
    return "\n\n".join([f"usage: {command} PRESET [flags]", _filled(description), *sections]) + "\n"


def _section(heading: str, entries: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"{heading}:", *(_entry(name, text) for name, text in entries)])


def flag_names(settings: type[Any]) -> list[str]:
    """Return the fields of a dataclass that have a flag: all but positional arguments."""
    return [name for name, kind in get_type_hints(settings, include_extras=True).items() if not _is_positional(kind)]


def takes_several(kind: Any) -> bool:
    """Whether a setting of this type takes several values."""
    plain = _plain(kind)
    return any(get_origin(each) is tuple for each in (plain, *get_args(plain)))


def _documented(settings: type[Any]) -> dict[str, str]:
    """Return the text below each field."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found[line.target.id] = " ".join(str(text).split())
    return found


def _flag(field: Field[Any], kind: Any, text: str, default: Any) -> tuple[str, str]:
    """Return a flag with its value, and what it does."""
    if _is_positional(kind):
        return _value(kind), text
    value = getattr(default, field.name) if default is not None else field.default
    name = field.name.replace("_", "-")
    if _plain(kind) is bool:
        return (f"--no-{name}", f"Switch this off: {text}") if value is True else (f"--{name}", text)
    if tyro.conf.UseAppendAction in _marks(kind) and "repeated" not in text:
        text += " May be repeated."
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if value is not MISSING and value not in (None, ""):
        text = f"{text.partition(' Default:')[0]} Default: {value}."
    return f"--{name} {_value(kind)}", text


def _plain(kind: Any) -> Any:
    """Return a type without what is said about it."""
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _is_positional(kind: Any) -> bool:
    return tyro.conf.Positional in _marks(kind)


def _marks(kind: Any) -> tuple[Any, ...]:
    """Return what is said about a type."""
    return getattr(kind, "__metadata__", ())


def _value(kind: Any) -> str:
    """Return how the value of a flag is called."""
    for mark in _marks(kind):
        if getattr(mark, "metavar", None):
            return str(mark.metavar)
    once = tyro.conf.UseAppendAction in _marks(kind)
    kind = _plain(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return "|".join(_value(one) for one in inner if one is not types.NoneType)
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return _value(inner[0]) if once else f"{_value(inner[0])} ..."
    return _NAMES[kind]


def _entry(name: str, text: str) -> str:
    """Return a flag and its text in two columns, or one below the other where the flag is long."""
    body = textwrap.wrap(text, _width() - _INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    if len(name) + 4 <= _INDENT:
        body[0] = f"  {name}".ljust(_INDENT) + body[0]
        return "\n".join([body[0], *(" " * _INDENT + line for line in body[1:])])
    head = textwrap.wrap(f"  {name.replace(',', ', ')}", _width(), subsequent_indent=" " * 6, break_long_words=False)
    head = [line.replace(", ", ",") for line in head]
    return "\n".join([*head, *(" " * _INDENT + line for line in body)])


def _filled(text: str) -> str:
    """Return paragraphs as wide as the page."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n\n".join(textwrap.fill(one, _width(), break_on_hyphens=False) for one in paragraphs)


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, _WIDEST))
