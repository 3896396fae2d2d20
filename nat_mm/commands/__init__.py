"""Implements the commands: arguments, messages and exit codes; `main` is the script ``nat-mm``."""
