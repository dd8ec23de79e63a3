"""A certification run: its settings, its inputs, its folder, and the votes that are drawn."""
