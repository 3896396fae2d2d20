"""``python -m nat_mm COMMAND``: the same as ``nat-mm COMMAND``."""

from nat_mm.commands.main import main

if __name__ == '__main__':
    main()
