"""Finds what is wrong with data before training."""
