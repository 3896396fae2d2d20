"""From config, checkpoint and images to predictions."""
