"""Report sections: one file is one section, shown in the order of its ORDER."""
