"""Certification logs of other programs: read, recover votes, compare rules."""
