"""Reports: tables, plots and the self-contained page, built from rows on disk."""
