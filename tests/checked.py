"""beartype, which looks at the annotations of a function inside a function once, not whenever that one is called.

jaxtyping's import hook decorates what a `def` statement makes, each time that it runs. It hands over an empty function
of the same signature, so one checked function serves all that have the same.
"""

from typing import Any, Literal, get_args, get_origin

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

CONFIGURATION = BeartypeConf(is_pep484_tower=True)  # an int counts as a float
_CHECKED: dict[tuple, Any] = {}


def check(function: Any) -> Any:
    """Return a function that checks what it is called with, as `beartype` does."""
    code, annotations = function.__code__, function.__annotations__
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    key = (
        function.__module__, function.__qualname__, code.co_code, code.co_varnames, code.co_flags,
        *map(id, defaults), *annotations, *map(_meaning, annotations.values()),
    )  # fmt: skip
    try:
        if key not in _CHECKED:
            _CHECKED[key] = beartype(conf=CONFIGURATION)(function), defaults  # kept, so that their ids stay theirs
    except TypeError:  # an annotation that has no hash
        return beartype(conf=CONFIGURATION)(function)
    return _CHECKED[key][0]


def _meaning(annotation: Any) -> Any:
    """What annotations that say the same have in common: jaxtyping makes a new class for each."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return annotation.dtype, annotation.array_type, annotation.dim_str
    if isinstance(annotation, list):  # the arguments of a Callable
        return tuple(map(_meaning, annotation))
    origin = get_origin(annotation)
    return annotation if origin in (None, Literal) else (origin, *map(_meaning, get_args(annotation)))
