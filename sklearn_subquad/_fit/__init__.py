"""A fit: what is planned, which rows are held out, networks that are fitted, and what is learned from rows left out."""
