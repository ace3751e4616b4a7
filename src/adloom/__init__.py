"""Adloom: an e-commerce shop's advertising creatives as a daily loop."""

__version__ = "0.1.0"
