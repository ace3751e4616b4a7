"""``python -m adloom``: the same as the command ``adloom``."""

from adloom.cli import app

app()
