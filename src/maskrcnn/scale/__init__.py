"""Prediction of any number of images: parts of a sorted list, each one Parquet file that is written once."""
