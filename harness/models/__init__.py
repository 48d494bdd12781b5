"""Engines: one file is one way to generate text and score it."""
