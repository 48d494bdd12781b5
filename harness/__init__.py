"""Proctor: train students with every objective, examine them, and say with error bars which one to ship."""

__version__ = "0.1.0"
