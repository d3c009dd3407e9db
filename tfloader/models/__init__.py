"""Families of models, and the functions that build, load and save them."""
