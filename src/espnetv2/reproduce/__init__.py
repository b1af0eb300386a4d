"""The papers' tables and figures as commands: paper value, ours, the gap, how ours came to be."""
