"""Formats that keep masks as pictures."""
