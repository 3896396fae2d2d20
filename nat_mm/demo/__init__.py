"""What ``tools/demo.py`` is made of: running both trainings, and drawing what came out."""
