"""Accepts the images that clients send, as long as there is room for them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from nat_mm.inference.image_sizes import image_size
from nat_mm.inference.images import MEGAPIXELS, UnreadableInput, check_size
from nat_mm.serving.requests import FORM_BYTES, CountedRequest, read_form

_TYPES = 'JPEG, PNG, WebP, BMP or TIFF'
_CROWD = 'Too many images are waiting for the model. Please try again.'
RETRY_SECONDS = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the resources that clients may use.

    Attributes:
        batch_size: Most images to predict at once.
        max_wait: Seconds that an image waits for others to be predicted with it.
        queue: Most images that have arrived and are not answered yet.
        timeout: Seconds within which an image is answered after its arrival.
        megabytes: Largest size of an image file.
        megapixels: Largest size of an image.
        waiting_megabytes: Largest total size of all files that are being received or are not
            answered yet.
        waiting_megapixels: Largest total size of all images in the queue.
    """

    batch_size: int = 8
    max_wait: float = 0.005
    queue: int = 64
    timeout: float = 60
    megabytes: float = 20
    megapixels: float = MEGAPIXELS
    waiting_megabytes: float = 400
    waiting_megapixels: float = 400


class Intake:
    """Tracks the memory in use for all clients; only used in the event loop's thread.

    Args:
        limits: Limits to enforce.

    Attributes:
        waiting: Number of images that have arrived and are not answered yet.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self._pixels = 0
        self.waiting = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Counts an image that has arrived inside the ``with`` block.

        Raises:
            HTTPException: If too many are waiting.
        """
        if self.waiting >= self._limits.queue:
            raise crowded()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @contextmanager
    def room(self, pixels: int) -> Iterator[None]:
        """Reserves room for decoding an image inside the ``with`` block.

        Args:
            pixels: Size of the image.

        Raises:
            HTTPException: If there is no room.
        """
        # A single image is always accepted, however large, so that none is rejected forever.
        if self._pixels and self._pixels + pixels > self._limits.waiting_megapixels * 1e6:
            raise crowded()
        self._pixels += pixels
        try:
            yield
        finally:
            self._pixels -= pixels

    @contextmanager
    def file(self, request: CountedRequest) -> Iterator['File']:
        """Receives a file inside the ``with`` block, after which it no longer counts."""
        file = File(self, request)
        try:
            yield file
        finally:
            self._bytes -= file.size

    def take(self, file: 'File', piece: bytes) -> None:
        """Appends to a file.

        Raises:
            HTTPException: If the file or all files together are too large.
        """
        if file.size + len(piece) > self._limits.megabytes * 1e6:
            raise self.too_large()
        if self._bytes + len(piece) > self._limits.waiting_megabytes * 1e6:
            raise crowded()
        self._bytes += len(piece)
        file.size += len(piece)
        file.pieces.append(piece)

    def too_large(self) -> HTTPException:
        """Creates the error for a file that is too large."""
        return HTTPException(
            413, f'The file has more than the {self._limits.megabytes:g} MB that are accepted here.'
        )

    @property
    def longest_body(self) -> int:
        """Most bytes of a request: a file and the rest of a form."""
        return int(self._limits.megabytes * 1e6) + FORM_BYTES


class File:
    """A file that a client sends.

    Attributes:
        size: Number of bytes that have arrived.
        pieces: The bytes that have arrived.
    """

    def __init__(self, intake: Intake, request: CountedRequest) -> None:
        self.size = 0
        self.pieces: list[bytes] = []
        self._intake = intake
        self._request = request

    async def receive(self) -> bytes:
        """Receives the whole file.

        Raises:
            HTTPException: If the file is empty, too large, or of a type that is not accepted.
        """
        request, limit = self._request, self._intake.longest_body
        kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
        if request.declared_size > limit:
            raise self._intake.too_large()
        if kind == 'multipart/form-data':
            await read_form(request, limit=limit, take=lambda data: self._intake.take(self, data))
        elif kind.startswith('image/') or kind in ('application/octet-stream', ''):
            async for chunk in request.chunks(limit):
                self._intake.take(self, chunk)
        else:
            raise HTTPException(
                415,
                f'The body is the image itself ({_TYPES}) with its Content-Type, or a form, '
                f'multipart/form-data, with one file; not {kind[:100]}. URLs are not fetched.',
            )
        if not self.size:
            raise HTTPException(400, 'The image is empty.')
        content = b''.join(self.pieces)
        self.pieces.clear()
        return content


def count_pixels(content: bytes, *, megapixels: float) -> int:
    """Returns the number of pixels of an image according to its header.

    Args:
        content: Content of the image file.
        megapixels: Size of the largest image that is accepted.

    Raises:
        HTTPException: If the file is not an acceptable image.
    """
    size = image_size(io.BytesIO(content))
    if size is None:
        raise HTTPException(415, f'This is not an image that can be read here: {_TYPES}.')
    width, height = size
    if width * height > megapixels * 1e6:
        raise HTTPException(
            413,
            f'{width} x {height} pixels are more than the {megapixels:g} megapixels that are '
            'accepted here.',
        )
    try:
        check_size(width, height, megapixels)
    except UnreadableInput as error:
        raise HTTPException(422, f'{error}.') from error
    return width * height


def crowded() -> HTTPException:
    """Creates the error for a lack of room."""
    return HTTPException(503, _CROWD, {'Retry-After': str(RETRY_SECONDS)})
