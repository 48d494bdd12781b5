"""Probes: one file asks students about one habit, or reads it from their answers. The folder is the registry."""
