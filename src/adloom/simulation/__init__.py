"""Worlds whose truth is planted, so that an estimate can be held against it."""
