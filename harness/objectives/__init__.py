"""Objectives: one file is one training objective. The folder is the registry."""
