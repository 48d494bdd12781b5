"""Pipeline stages: each fills one kind of cell."""
