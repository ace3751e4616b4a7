"""Finished ad images and short videos: pictures of items, text composed over them, checks of the result."""
