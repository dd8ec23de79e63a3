"""What every command does: it reads its flags, prints tables, warns and fails in one line."""

import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NoReturn, TextIO, TypeVar, cast, get_type_hints

import tyro
from rich.console import Console
from rich.text import Text

from regions.extras import MissingExtra, need
from srs.commands._help import asked_for, flag_names, help_of, help_of_presets, takes_several
from srs.text import visible

Settings = TypeVar("Settings")

#: Of a disk, a quota or a file size limit.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: A flag, and no negative number.
_FLAG = re.compile(r"--?[A-Za-z]")

#: How an argument without characters is shown.
_EMPTY = "''"

#: Exit code where the reader of a pipe has left, as in `srs-certify --help | head`: what a shell says of SIGPIPE.
_NOBODY_READS = 141


def parse_preset(presets: Mapping[str, tuple[str, Settings]], command: str, description: str) -> Settings:
    """Read a preset's name and what overrides it; presets are (description, settings) by name."""
    args = sys.argv[1:]
    chosen = args[0].replace("_", "-") if args else ""
    if chosen in presets:
        default = presets[chosen][1]
        return parse(type(default), command, description, default=default, args=args[1:], preset=chosen)
    if asked_for(args):
        _show(help_of_presets(command, description, {name: about for name, (about, _) in presets.items()}))
    _show_version(command, args)
    if not any(arg.startswith("--tyro-") for arg in args):  # which write completion scripts
        said = f"{args[0] or _EMPTY} is no preset" if args else "no preset"
        raise ValueError(f"{said}: the first word is one of {', '.join(presets)}")
    kind = tyro.extras.subcommand_type_from_defaults(
        {name: default for name, (_, default) in presets.items()},
        {name: about for name, (about, _) in presets.items()},
    )
    return parse(kind, command, description, args=args)


def _without_known(args: Sequence[str], settings: Any, default: object) -> list[str]:
    """Return arguments without the switches that say what is so already, as `--racing` of a run that races.

    Each switch has one spelling, the one that changes something, and the help shows no other.
    """
    known = set()
    for field in fields(settings):
        value = field.default if default is None else getattr(default, field.name)
        if isinstance(value, bool):
            known.add(f"--{'' if value else 'no-'}{field.name.replace('_', '-')}")
    return [arg for arg in args if arg not in known]


def parse(
    settings: type[Settings],
    command: str,
    description: str,
    *,
    default: Settings | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    args: Sequence[str] | None = None,
    preset: str | None = None,
) -> Settings:
    """Read the command line, or these arguments, over a default; flags that cannot be used: one line, exit code 2.

    `groups` are the headings of the help, and the settings below them; `preset` is the word after which arguments
    begin. What settings that check themselves refuse is a `ValueError`.
    """
    given = sys.argv[1:] if args is None else args
    _show_version(command, given)
    if is_dataclass(settings):  # and not one of several presets
        given = _without_known(given, settings, default)
    if asked_for(given):
        _show(help_of(settings, command, description, default=default, groups=groups, preset=preset))
    if is_dataclass(settings):
        _refuse_empty_lists(given, settings, command)
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            found = tyro.cli(
                settings,
                prog=command,
                description=description,
                default=tyro.MISSING_NONPROP if default is None else default,  # None would be no preset
                args=given,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
            return cast(Settings, found)
    except SystemExit as end:
        if end.code:  # tyro draws a box around several lines
            text = _shortened(complaint.getvalue(), f"{command.partition(':')[0]} {preset or ''}".rstrip())
            if found := re.match(r"Error parsing \w+Settings: (.*?) For full helptext", text):
                raise ValueError(found[1]) from None  # what the settings themselves say
            _complain(command, text)
        raise


def _shortened(complaint: str, command: str) -> str:
    """Return what tyro complains about without what it draws, and without the None that no flag is given."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", complaint)  # colours, on a terminal
    lines = re.sub(r"[\u2500-\u257f]|-{4,}", " ", plain).splitlines()[1:]  # the first is the box's title
    text = " ".join(" ".join(lines).split())
    text = re.sub(r"For full helptext.*", f"For full helptext, run {command} --help", text)
    hints = r"(?: (?:Perhaps you meant|Arguments similar to) .*?)?"
    if found := re.match(rf"Unrecognized options:(.*?){hints} (For full helptext.*)", text):
        words = [word.strip() or _EMPTY for word in found[1].split(", ")]
        unknown = [word for word in words if _FLAG.match(word)]
        close = dict.fromkeys(name[1] for line in lines if (name := re.match(r" {6}(--[\w-]+)", line)))
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        return f"{', '.join(unknown or words)}: no such {'option' if unknown else 'argument'}{hint} {found[2]}"
    text = re.sub(r"^Error parsing (\S+): no type matching (\S+) could be instantiated from "
                  r"\['(.*?)'\]\. .*? For full", r"\1 \3: expected \2. For full", text)  # fmt: skip
    text = re.sub(r"^Error parsing (\S+): (.*?) Argument helptext: .*? For full", r"\1: \2. For full", text)
    return re.sub(r"\{None\}\||'None', |, 'None'| \(default: None\)", "", text)


def _refuse_empty_lists(args: Sequence[str], settings: Any, command: str) -> None:
    """Refuse a flag of any number of values that has none, as where a shell's variable is empty.

    Over a file it has a meaning: not the values that the file says.
    """
    if any(arg.partition("=")[0] in ("--config", "--resume") for arg in args):
        return
    kinds = get_type_hints(settings, include_extras=True)
    several = {f"--{name.replace('_', '-')}" for name in flag_names(settings) if takes_several(kinds[name])}
    for arg, after in pairwise([*args, "--"]):
        if arg.replace("_", "-") in several and after.startswith("--"):
            _complain(command, f"{arg}: no value; give one or several, or leave it out")
            raise SystemExit(2)


def _show_version(command: str, args: Sequence[str]) -> None:
    if "--version" in args:
        _show(f"{command} {version('srs-certify')}\n")


def _show(text: str) -> NoReturn:
    sys.stdout.write(text)
    raise SystemExit(0)


@contextmanager
def needing(extra: str, command: str) -> Iterator[None]:
    """See that what an extra brings is installed; otherwise one line that says how to install it, and exit code 2."""
    _show_version(command, sys.argv[1:])
    with one_line_errors(command):
        need(extra, "this command")
    yield


@contextmanager
def printing(command: str) -> Iterator[None]:
    """See that what a command prints arrives.

    It ends quietly, with exit code 141, where the reader of a pipe has left. Where stdout is closed or full it ends
    with one line on stderr and exit code 2. Names that no encoding knows are printed with escapes.
    """
    if sys.stdout is None:  # and a file that is opened next might take its number
        _complain(command, "stdout is closed: send it somewhere, such as to /dev/null")
        raise SystemExit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = sys.stdout
    sys.stdout = cast(TextIO, _Stdout(cast(io.TextIOBase, before)))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except CannotPrintError as error:
        _print_no_more(cast(io.TextIOBase, before))
        if isinstance(error.__cause__, BrokenPipeError):
            raise SystemExit(_NOBODY_READS) from None
        failed = isinstance(error.__context__, SystemExit) and error.__context__.code
        if not failed:  # it has not said anything yet
            _complain(command, str(error))
        raise SystemExit(2) from error
    finally:
        sys.stdout = before


class CannotPrintError(Exception):
    """What is printed does not arrive. No `OSError`: those are about files that a command reads or writes."""


class _Stdout:
    """A stream that tells its own failures from all others."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise CannotPrintError(f"cannot print to stdout: {error.strerror}") from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise CannotPrintError(f"cannot print to stdout: {error.strerror}") from error


@contextmanager
def one_line_errors(command: str, interrupted: str = "nothing was written") -> Iterator[None]:
    """Turn bad input into `command: message` on stderr and exit code 2; an interrupt into exit code 130.

    Catches `ValueError`, `OSError`, `FloatingPointError`, `MemoryError` and `MissingExtra`. Anything else is a defect
    and keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError, MissingExtra) as error:
        remedy = "; make room and try again" if getattr(error, "errno", None) in _FULL else ""
        _complain(command, f"{error}{remedy}")
        raise SystemExit(2) from error
    except MemoryError as error:
        text = " ".join(str(error).split())
        sys.stderr.write(f"{command}: out of memory{': ' * bool(text)}{text}; use fewer images or a larger machine\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        _complain(command, f"interrupted, {interrupted}", before="\n")
        raise SystemExit(130) from error


@contextmanager
def naming_flags(settings: type[Any], **others: str) -> Iterator[None]:
    """Name flags in messages about arguments of the functions that a command calls: `--n0 5` where they say `n0 = 5`.

    Parameters
    ----------
    settings : type
        A dataclass, one field for each flag.
    **others : str
        Flags of arguments that are called otherwise: batch_size="--batch".
    """
    flags = {name: f"--{name.replace('_', '-')}" for name in flag_names(settings)} | others
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        said = str(error)
        text = in_flags(said, flags)
        if text == said:
            raise
        kind = FloatingPointError if isinstance(error, FloatingPointError) else ValueError
        raise kind(text) from error


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a message in which what Python calls an argument is the flag; numbers in files keep their names."""
    name = "|".join(map(re.escape, flags))

    def flag(found: re.Match[str]) -> str:
        return f"{flags[found[1]]} {found[2].removeprefix(chr(39)).removesuffix(chr(39))}"

    text = re.sub(rf"\b({name})=('[^']*')", flag, text)  # a remedy in Python
    if re.match(rf"({name})( = | ')", text):  # it is about this argument, not about what a file says
        text = re.sub(rf"^({name}) ('[^']*')", flag, text)
        text = re.sub(rf"\b({name}) = ('[^']*'|[^\s:;,]*[^\s:;,.])", flag, text)
        text = re.sub(rf"\b({name})(=True\b|\b)", lambda found: _alone(found, flags), text)
    return text


def _alone(found: re.Match[str], flags: Mapping[str, str]) -> str:
    """Return the flag of an argument without its value; words that are English stay."""
    return flags[found[1]] if found[2] or "_" in found[1] else found[0]


def _complain(command: str, text: str, before: str = "") -> None:
    """Write one line to stderr, if there is one."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{before}{command}: {visible(' '.join(text.split()))}\n")
        sys.stderr.flush()
    except OSError:  # nobody reads this either: the exit code says it
        _print_no_more(cast(io.TextIOBase, sys.stderr))


def _print_no_more(stream: io.TextIOBase) -> None:
    """Let what is left to print vanish, so that Python does not complain about it when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def one_line_warnings(command: str) -> Iterator[None]:
    """Turn warnings into `command: warning: message` on stderr."""

    def show(message: Warning | str, *rest: object, **named: object) -> None:
        sys.stderr.write(f"{command}: warning: {' '.join(str(message).split())}\n")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def one_line_news(command: str) -> Iterator[None]:
    """Pass on what our packages log, such as that they compile, as `command: message` on stderr: on terminals only."""
    log = logging.getLogger("regions")
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    handler, before = _News(logging.INFO), log.level
    handler.setFormatter(logging.Formatter(f"{command}: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _News(logging.Handler):
    """Writes to what is stderr when something is said: progress bars put a stream of their own there."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


#: Columns of a pipe or a file, which has no width of its own: no table is folded there.
_WIDE = 1000


class Screen(Console):
    """A console that shows every text as it is: `[...]` and `:smile:` in a file's name are no markup."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, stderr=stderr)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a text of one line for the terminal, control characters as escapes."""
        return super().render_str(visible(text), **how)


def console() -> Screen:
    """Return a console on stdout, as wide as the terminal."""
    found = Screen()
    if not found.is_terminal:
        found.width = _WIDE
    return found
