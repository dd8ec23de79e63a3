"""Votes under noise: how noise is drawn, and how models are kept busy with it."""
