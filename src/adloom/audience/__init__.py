"""Audience: segments of at least k users and the words they are described with."""
