"""Code of the user's own, named `package.module:factory`: imported and found, or what is wrong in one line."""

import importlib
from collections.abc import Callable
from typing import Any

from smoothing.forward import FAILURES, reason


def factory_of(name: str, what: str) -> Callable[..., Any]:
    """Import the module that a name begins with, which runs it, and return the factory.

    Parameters
    ----------
    name : str
        `package.module:factory`. No file may ask for that: the user names it.
    what : str
        What begins the messages.

    Raises
    ------
    ValueError
        Where the module cannot be imported or has no such factory.
    """
    module, _, factory = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{what}: {error}; name package.module:factory, importable from here (PYTHONPATH=. adds the folder that "
            "you are in)"
        ) from error
    except MemoryError:
        raise
    except FAILURES as error:
        raise ValueError(f"{what}: importing {module} failed: {reason(error)}") from error
    return found
