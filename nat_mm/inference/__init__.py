"""Loads configs and checkpoints, and predicts images."""
