"""Reads configs, and tells mistakes in them from bugs."""
