"""Prints which repairs are active, why, and where the problems are reported upstream."""

from nat_mm.compat import REPAIRS, STAND_INS, find_status
from nat_mm.output import perhaps_unread


def main() -> None:
    """Prints a table of all repairs."""
    rows = [('repair', 'active', 'why', 'upstream')]
    rows += [
        (each.name, 'yes' if each.active else 'no', each.reason, each.upstream)
        for each in map(find_status, sorted((*REPAIRS, *STAND_INS)))
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


if __name__ == '__main__':
    with perhaps_unread(interrupted=0):
        main()
