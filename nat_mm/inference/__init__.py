"""Loads models, predicts images and videos with them, and writes and draws the results."""
