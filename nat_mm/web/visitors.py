"""Keeps the results of each visitor of the page, within bounds."""

import secrets
import shutil
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from nat_mm.web.bounds import KEPT_MEGABYTES, VISITORS
from nat_mm.web.findings import PackedFinding
from nat_mm.web.uploads import RefusalError

REMEMBERED = 20 * VISITORS
"""Number of visitors for whom it is remembered that their result was dropped."""

Point = tuple[float, float]


class DroppedError(RefusalError):
    """A visitor's result was dropped to make room for those of others."""

    def __init__(self) -> None:
        super().__init__(
            'This image is no longer kept here: too many other visitors came after you. '
            'Please drop or choose it again.'
        )


@dataclass(eq=False)
class Visit:
    """What is kept for a visitor.

    Attributes:
        finding: The result of a model for their image.
        point: Where they clicked in the image, (x, y) in its pixels.
        threshold: Lowest score of the objects that are drawn.
    """

    finding: PackedFinding
    point: Point | None = None
    threshold: float | None = None
    _folders: dict[str, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Size in bytes, including files."""
        files = (file for folder in self._folders.values() for file in folder.rglob('*'))
        return self.finding.size + sum(file.stat().st_size for file in files if file.is_file())

    def renew_folder(self, name: str, *, inside: Path) -> Path:
        """Removes the folder of the last drawing, and creates one for the next.

        Args:
            name: What is drawn.
            inside: Parent of the folder.

        Returns:
            An empty folder with an unguessable name that was never used before: for a known URL,
            browsers would show cached content.
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
    """What is kept for all visitors, in the order of their last activity.

    A session is the name that a visitor's browser gives itself. It only serves to find the visitor
    again.
    """

    def __init__(self) -> None:
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._dropped: OrderedDict[str, None] = OrderedDict()

    def find(self, session: str) -> Visit | None:
        """Finds what is kept for a visitor.

        Args:
            session: The visitor's session.

        Returns:
            What is kept; None if no model has produced a result for them yet.

        Raises:
            DroppedError: It was dropped to make room for others.
        """
        if session in self._dropped:
            raise DroppedError
        if session in self._visits:
            self._visits.move_to_end(session)
        return self._visits.get(session)

    def keep(self, session: str, finding: PackedFinding) -> Visit:
        """Keeps a result in place of the visitor's previous one.

        Args:
            session: The visitor's session.
            finding: The result.

        Returns:
            What is kept for them from now on.
        """
        self.leave(session)
        self._visits[session] = Visit(finding)
        return self._visits[session]

    def leave(self, session: str) -> None:
        """Removes what is kept for a visitor."""
        self._dropped.pop(session, None)
        visit = self._visits.pop(session, None)
        if visit is not None:
            visit.remove_folders()

    def make_room(self) -> None:
        """Drops what is kept for the least recent visitors until all is within the bounds."""
        sizes = {session: visit.size for session, visit in self._visits.items()}
        total = sum(sizes.values())
        # The most recent visitor stays, whatever the size.
        for session in list(sizes)[:-1]:
            if len(self._visits) <= VISITORS and total <= KEPT_MEGABYTES * 10**6:
                break
            total -= sizes[session]
            self.leave(session)
            self._dropped[session] = None
        while len(self._dropped) > REMEMBERED:
            self._dropped.popitem(last=False)
