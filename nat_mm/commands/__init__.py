"""Commands: arguments, messages and exit codes. `main` is the console script ``nat-mm``."""
