"""What the commands in ``tools/`` share: reading configs, checking input, reporting mistakes."""
