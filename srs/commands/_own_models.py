"""Models of the user's own, `package.module:factory`: where they are looked for, and who has to name them."""

import sys
from collections.abc import Sequence


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
    named = any(name and ":" in name and names_it(name, given) for name in names)
    if named and "" not in sys.path:
        sys.path.insert(0, "")


def names_it(name: str, args: Sequence[str]) -> bool:
    """Whether a command line holds the value, as an argument of its own or after an equals sign."""
    return any(arg == name or (arg.startswith("--") and arg.partition("=")[2] == name) for arg in args)
