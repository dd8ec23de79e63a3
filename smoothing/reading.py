"""Settings and results in JSON and YAML. A file may come from somebody else: it is hostile until it was checked."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from smoothing.storage import check_regular

#: Of a file of settings or results; ours are a thousandth of it.
_MOST_BYTES = 2**26

#: Settings are parsed by Python, which takes a second for so many bytes.
_MOST_SETTINGS = 2**18

#: Levels of lists and mappings in each other.
_DEEPEST = 20


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    file : path
    remedy : str
        What the message says to do where the file cannot be used.

    Raises
    ------
    ValueError
        Where the file holds anything but one object of plain values, no key twice and not nested deeply.
    OSError
        Where it cannot be opened.
    """
    return _read(file, remedy, _MOST_BYTES, lambda text: json.loads(text, object_pairs_hook=_once))


def read_yaml(file: Path, remedy: str) -> dict[str, Any]:
    """Read a YAML mapping; as `read_json`. Aliases are refused as well, because they grow without bound."""
    return _read(file, remedy, _MOST_SETTINGS, lambda text: yaml.load(text, _PlainLoader))


def _read(file: Path, remedy: str, most: int, parse: Callable[[str], Any]) -> dict[str, Any]:
    check_regular(file)
    if file.stat().st_size > most:
        raise ValueError(f"{file} is damaged: {remedy} (it has more than {most:,} bytes)")
    data = file.read_bytes()
    try:
        content = parse(data.decode())
        if not isinstance(content, dict):
            raise ValueError("it holds no settings by name")
        _check_plain(content)
    except Exception as error:  # parsers raise KeyError, RecursionError and more on what they were not written for
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{file} is damaged: {remedy} ({reason})") from error
    return content


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found


def _check_plain(content: dict[Any, Any]) -> None:
    """Raise where a name is no text, or values are nested deeply. Without recursion, which has an end of its own."""
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for name in value:
                    if not isinstance(name, str):
                        raise ValueError(f"{name!r} is no name of a setting")
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if not inner:
            return
        level = inner
    raise ValueError("its values are nested too deeply")


class _PlainLoader(yaml.SafeLoader):
    """Plain values, each written out once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        _once((key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)
