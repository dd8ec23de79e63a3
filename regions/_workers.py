"""Making calls by joblib's workers, with results in order; or in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function at the top level of a module, and its arguments. Both are sent to a worker."""

Workers = int | str
"""A number of jobs of joblib's current backend, or the name of a backend, which stands for all its workers."""


def results(parallel: Workers | None, calls: Iterable[Call]) -> Iterator[Any]:
    """What the calls return, in their order. The iterable is advanced as workers become free."""
    if parallel is None:
        return (function(*arguments) for function, arguments in calls)
    from joblib import delayed

    found: Iterator[Any] = _pool(parallel)(delayed(function)(*arguments) for function, arguments in calls)
    return found


def count(parallel: Workers) -> int:
    """How many calls can run at once."""
    return int(_pool(parallel)._effective_n_jobs())


def _pool(parallel: Workers) -> Any:
    from joblib import Parallel, parallel_config

    named = isinstance(parallel, str)
    try:
        # joblib 1.6 fails if Dask is named by Parallel's own argument (Dask gets one argument too many): name it here
        with parallel_config(backend=parallel, n_jobs=-1) if named else nullcontext():
            return Parallel(None if named else parallel, return_as="generator", batch_size=1)
    except (ValueError, ImportError) as error:  # an unknown name; or Dask is not installed, or has no client
        reason = " ".join(str(error).split())
        raise ValueError(f"parallel = {parallel!r}: joblib cannot use this backend here ({reason})") from error
