"""Finds problems with data before training."""
