"""Formats that keep masks as coordinates or run lengths in files of annotations."""
