"""Data sets made of data sets: divided, merged and cut down. Pure functions on `Dataset`, without files."""
