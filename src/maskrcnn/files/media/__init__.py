"""Large images and videos, which are read part by part."""
