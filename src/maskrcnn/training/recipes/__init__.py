"""Recipes: settings that are chosen for a data set and a machine, each with its reason."""
