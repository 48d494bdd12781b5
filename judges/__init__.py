"""Judge protocols: one file is one protocol. The folder is the registry."""
