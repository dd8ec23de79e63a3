"""Certification logs of other programs: read, recover votes, compare rules."""

from srs.logs.read import Logs, read_logs

__all__ = ["Logs", "read_logs"]
