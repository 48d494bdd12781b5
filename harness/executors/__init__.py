"""Who fills the cells."""
