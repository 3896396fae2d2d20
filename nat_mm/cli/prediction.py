"""Predicts pictures and videos with a loaded model, and writes what comes out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nat_mm.cli.errors import CommandError
from nat_mm.cli.files import write_image
from nat_mm.cli.inputs import Frame, count_frames, read_frames
from nat_mm.cli.interrupts import delayed_interrupt
from nat_mm.cli.pictures import check_not_overwritten
from nat_mm.cli.predictor import Predictor
from nat_mm.cli.video import Video, VideoWriter

DATA_SUFFIXES = ('.json', '.png')


@dataclass
class Outcome:
    """How a prediction ended.

    Attributes:
        predicted: Number of images whose results are written.
        unreadable: Path and reason of each input that could not be read, or not to its end.
        interrupted: Whether Ctrl-C stopped it.
    """

    predicted: int = 0
    unreadable: list[str] = field(default_factory=list)
    interrupted: bool = False


def check_outputs(media: Sequence[Path | Video], out_dir: Path) -> None:
    """Checks that results can be written, and take the place of nothing that is worth keeping.

    Args:
        media: What is going to be predicted.
        out_dir: Folder of the results.

    Raises:
        CommandError: A result would overwrite an input or an earlier recording of a camera, or
            the folder of the results is a file or cannot be written to.
    """
    existing = next(path for path in (out_dir, *out_dir.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise CommandError(f'--out-dir {out_dir}: {existing} is a file, not a folder')
    if not os.access(existing, os.W_OK):
        raise CommandError(f'--out-dir {out_dir}: {existing} is not writable')
    files, outputs = [], []
    for medium in media:
        drawing = _drawing_path(medium, out_dir)
        outputs.append(drawing)
        if not isinstance(medium, Video):
            files.append(medium)
            outputs += [out_dir / 'results' / f'{medium.stem}{suffix}' for suffix in DATA_SUFFIXES]
        elif medium.is_camera and drawing.exists():
            raise CommandError(f'{drawing} exists: choose another --out-dir')
        elif not medium.is_camera:
            files.append(medium.source)
            outputs.append(out_dir / 'results' / medium.name)
    check_not_overwritten(files, outputs)


def predict_all(
    media: Sequence[Path | Video],
    predictor: Predictor,
    *,
    batch_size: int = 1,
    fps: float | None = None,
) -> Outcome:
    """Predicts pictures and videos, writes the results, and shows the progress.

    What cannot be read is left out. Ctrl-C ends it; everything predicted so far is kept, and
    videos and lists are finished.

    Args:
        media: What is predicted; results of `find_inputs`.
        predictor: What predicts it.
        batch_size: Number of images predicted at once, where they are of the same size.
        fps: Images in a second of the videos that are written; None means as many as each
            input has.

    Returns:
        What was predicted and what not.

    Raises:
        CommandError: A result cannot be written.
    """
    outcome = Outcome()
    try:
        with _progress() as progress, ResultWriter(predictor, fps=fps) as writer:
            task = progress.add_task('Predicting', total=count_frames(media))
            for batch in _batches(read_frames(media, outcome.unreadable), batch_size):
                samples = predictor.infer([frame.image for frame in batch])
                for frame, sample in zip(batch, samples, strict=True):
                    with delayed_interrupt():
                        writer.write(frame, sample)
                        outcome.predicted += 1
                        progress.advance(task)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


class ResultWriter:
    """Writes the results of images, and draws them into pictures and videos.

    As a context manager it finishes videos and lists at the end of the ``with`` block, also when
    an exception ends it.

    Args:
        predictor: What predicts the images.
        fps: Images in a second of the videos; None means as many as the input has.
    """

    def __init__(self, predictor: Predictor, *, fps: float | None = None) -> None:
        self._predictor = predictor
        self._fps = fps
        self._video: Video | None = None
        self._writer: VideoWriter | None = None

    def __enter__(self) -> 'ResultWriter':
        return self

    def __exit__(self, *exception: object) -> None:
        with delayed_interrupt(), ExitStack() as stack:
            stack.callback(self._predictor.close)
            stack.callback(self._finish_video)

    def write(self, frame: Frame, sample: BaseDataElement) -> None:
        """Writes what was predicted for an image.

        Args:
            frame: The image. Those of one video come one after the other.
            sample: What was predicted.

        Raises:
            CommandError: A file cannot be written.
        """
        drawing = self._predictor.draw(frame.image[..., ::-1], sample)[..., ::-1]
        try:
            if frame.video is None:
                path = _drawing_path(Path(frame.name), self._predictor.out_dir)
                write_image(path, drawing)
            else:
                if frame.video is not self._video:
                    self._start_video(frame.video, drawing)
                self._writer.write(np.ascontiguousarray(drawing))
            self._predictor.write_result(frame, sample)
        except OSError as error:
            raise CommandError(f'cannot write results: {error}') from error

    def _start_video(self, video: Video, drawing: np.ndarray) -> None:
        self._finish_video()
        out_dir = self._predictor.out_dir
        # A shorter or interrupted run must not leave the images of a longer one behind its own.
        for path in (out_dir / 'results' / video.name).glob('*.*'):
            if path.stem.isdecimal():
                path.unlink()
        self._writer = VideoWriter(
            _drawing_path(video, out_dir), fps=self._fps or video.fps(), size=drawing.shape[:2]
        )
        self._video = video

    def _finish_video(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _SpeedColumn(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed:.1f} images/s')


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TimeElapsedColumn(),
        TextColumn('left:'),
        TimeRemainingColumn(),
    )


def _batches(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Collects images of one shape, as mmseg needs them."""
    batch = []
    for frame in frames:
        if batch and (len(batch) == batch_size or frame.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def _drawing_path(medium: Path | Video, out_dir: Path) -> Path:
    if isinstance(medium, Video):
        return out_dir / 'videos' / f'{medium.name}.mp4'
    return out_dir / 'pictures' / f'{medium.stem}.jpg'
