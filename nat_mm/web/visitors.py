"""What is kept for each visitor of the page, and for how long."""

import secrets
import shutil
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from nat_mm.web.bounds import KEPT_MEGABYTES, VISITORS
from nat_mm.web.findings import PackedFinding
from nat_mm.web.uploads import RefusalError

REMEMBERED = 20 * VISITORS
"""Visitors of whom is known that their finding was dropped."""

Point = tuple[float, float]


class DroppedError(RefusalError):
    """A visitor's finding made room for those of others."""

    def __init__(self) -> None:
        super().__init__(
            'This image is no longer kept here: too many other visitors came after you. '
            'Please drop or choose it again.'
        )


@dataclass(eq=False)
class Visit:
    """What is kept for a visitor.

    Attributes:
        finding: What a model found in their image.
        point: Where they clicked in it, (x, y) in its pixels.
        threshold: Lowest score of what is drawn.
    """

    finding: PackedFinding
    point: Point | None = None
    threshold: float | None = None
    _folders: dict[str, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes."""
        files = (file for folder in self._folders.values() for file in folder.rglob('*'))
        return self.finding.size + sum(file.stat().st_size for file in files if file.is_file())

    def renew_folder(self, name: str, *, inside: Path) -> Path:
        """Removes the folder of what was drawn last, and makes one for what will be.

        Args:
            name: What is drawn.
            inside: Where the folder goes.

        Returns:
            An empty folder, whose name cannot be guessed and was never used: browsers would show
            again what they got under that address before.
        """
        self._remove(name)
        folder = inside / secrets.token_hex(16)
        folder.mkdir()
        self._folders[name] = folder
        return folder

    def remove_folders(self) -> None:
        """Removes everything that was drawn."""
        for name in list(self._folders):
            self._remove(name)

    def _remove(self, name: str) -> None:
        if name in self._folders:
            shutil.rmtree(self._folders.pop(name))


class Visitors:
    """What is kept for all visitors, in the order in which they were last here.

    Sessions are what the visitors' browsers call themselves, by which they are found again, and
    nothing else.
    """

    def __init__(self) -> None:
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._dropped: OrderedDict[str, None] = OrderedDict()

    def find(self, session: str) -> Visit | None:
        """What is kept for a visitor.

        Args:
            session: Whose.

        Returns:
            It; None if no model has found anything for them yet.

        Raises:
            DroppedError: It made room for others.
        """
        if session in self._dropped:
            raise DroppedError
        if session in self._visits:
            self._visits.move_to_end(session)
        return self._visits.get(session)

    def keep(self, session: str, finding: PackedFinding) -> Visit:
        """Keeps a finding in place of the visitor's last one.

        Args:
            session: Whose.
            finding: It.

        Returns:
            What is kept for them from now on.
        """
        self.leave(session)
        self._visits[session] = Visit(finding)
        return self._visits[session]

    def leave(self, session: str) -> None:
        """Removes what is kept for a visitor, who has gone."""
        self._dropped.pop(session, None)
        visit = self._visits.pop(session, None)
        if visit is not None:
            visit.remove_folders()

    def make_room(self) -> None:
        """Drops what is kept for those longest away until it is within the bounds."""
        sizes = {session: visit.size for session, visit in self._visits.items()}
        total = sum(sizes.values())
        # The one who is here stays, whatever the size.
        for session in list(sizes)[:-1]:
            if len(self._visits) <= VISITORS and total <= KEPT_MEGABYTES * 10**6:
                break
            total -= sizes[session]
            self.leave(session)
            self._dropped[session] = None
        while len(self._dropped) > REMEMBERED:
            self._dropped.popitem(last=False)
