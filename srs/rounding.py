"""The former name of `srs.logs.recover_votes`, kept for one version."""

import warnings

from srs.logs.recover_votes import Votes, lower, recover_votes

__all__ = ["Votes", "lower", "recover_votes"]

warnings.warn("srs.rounding is now srs.logs.recover_votes: import from there", DeprecationWarning, stacklevel=2)
