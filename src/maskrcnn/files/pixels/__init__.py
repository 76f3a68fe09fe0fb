"""The pixels of image files as arrays: what Pillow and tifffile read, and their conversions."""
