"""beartype, which looks at the annotations of a function inside a function once, not whenever that one is called.

jaxtyping's import hook decorates what a `def` statement makes, each time that it runs. It hands over an empty function
of the same signature, so one checked function serves all that have the same.
"""

from typing import Any

from beartype import BeartypeConf, beartype

CONFIGURATION = BeartypeConf(is_pep484_tower=True)  # an int counts as a float
_CHECKED: dict[tuple, Any] = {}


def check(function: Any) -> Any:
    """Return a function that checks what it is called with, as `beartype` does."""
    code, annotations = function.__code__, function.__annotations__
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    key = (
        function.__module__, function.__qualname__, code.co_code, code.co_varnames, code.co_flags,
        *map(id, defaults), *annotations.items(),
    )  # fmt: skip
    try:
        if key not in _CHECKED:
            _CHECKED[key] = beartype(conf=CONFIGURATION)(function), defaults  # kept, so that their ids stay theirs
    except TypeError:  # an annotation that has no hash
        return beartype(conf=CONFIGURATION)(function)
    return _CHECKED[key][0]
