"""Suites: one file is one suite. The folder is the registry."""
