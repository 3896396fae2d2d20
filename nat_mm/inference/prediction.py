"""Predicts images and videos with a loaded model, and writes the results."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
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

from nat_mm.errors import UserError
from nat_mm.files import check_folder, encode_image, write_bytes
from nat_mm.inference.images import check_not_overwritten
from nat_mm.inference.inputs import Frame, LeftOut, count_frames, read_frames, result_names
from nat_mm.inference.interrupts import delayed_interrupt
from nat_mm.inference.model import Model, batches
from nat_mm.inference.result_files import RESULT_SUFFIXES, ResultFiles
from nat_mm.inference.results import Result
from nat_mm.inference.tiling import Tiling, check_tiles_fit, infer_tiled
from nat_mm.inference.video import Video, VideoWriter, import_pyav

Infer = Callable[[Sequence[Frame]], list[BaseDataElement]]
"""Predicts a batch of images."""

_ANY_SUFFIX = sorted({suffix for suffixes in RESULT_SUFFIXES.values() for suffix in suffixes})


@dataclass
class Outcome:
    """How a prediction ended.

    Attributes:
        predicted: Number of images whose results were written.
        left_out: The reason for each input that could not be fully read or predicted.
        interrupted: Whether Ctrl-C stopped it.
    """

    predicted: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    interrupted: bool = False


def check_outputs(media: Sequence[Path | Video], out_dir: Path) -> None:
    """Checks that results can be written without overwriting anything worth keeping.

    Args:
        media: Inputs to predict.
        out_dir: Folder of the results.

    Raises:
        UserError: A result would overwrite an input or an earlier recording of a camera, the
            folder of the results is a file or cannot be written to, or a video is given and PyAV,
            which reads and writes it, is not installed.
    """
    check_folder(out_dir, name='--out-dir')
    files, outputs = [], []
    for medium, name in result_names(media).items():
        drawing = _drawing_path(name, out_dir, is_video=isinstance(medium, Video))
        outputs.append(drawing)
        if not isinstance(medium, Video):
            files.append(medium)
            outputs += [out_dir / 'results' / f'{name}{suffix}' for suffix in _ANY_SUFFIX]
            continue
        import_pyav()
        if medium.path is not None:
            files.append(medium.path)
            outputs.append(out_dir / 'results' / name)
        elif drawing.exists():
            raise UserError(f'{drawing} exists: choose another --out-dir')
    check_not_overwritten(files, outputs)


def predict_all(
    media: Sequence[Path | Video],
    model: Model,
    *,
    out_dir: Path,
    score_threshold: float,
    opacity: float,
    batch_size: int,
    fps: float | None,
    max_megapixels: float,
    tiling: Tiling | None,
) -> Outcome:
    """Predicts images and videos, writes the results, and shows the progress.

    Images are loaded as in the config's test pipeline. Inputs that cannot be read or predicted are
    left out. Ctrl-C ends the prediction; everything predicted so far is kept, and videos and lists
    are completed.

    Args:
        media: Inputs to predict; results of `find_inputs`.
        model: The model.
        out_dir: Folder of the results.
        score_threshold: Lowest score of the objects that are drawn and written, 0 to 1.
        opacity: Opacity of drawn masks and label maps, 0 to 1.
        batch_size: Number of images predicted at once if they have the same size.
        fps: Frames per second of the videos that are written; None means that of each input.
        max_megapixels: Size of the largest images that are decoded.
        tiling: Tiles in which each image is predicted, ``batch_size`` of them at once; None
            predicts whole images.

    Returns:
        What was predicted and what was not.

    Raises:
        UserError: A result cannot be written, or the model cannot predict tiles.
        Exception: Nothing could be predicted, for a reason other than faulty images.
    """
    outcome = Outcome()
    left_out = outcome.left_out
    infer: Infer = model.infer
    if tiling is not None:
        check_tiles_fit(model)
        infer = functools.partial(
            infer_tiled,
            model,
            tiling=tiling,
            tiles_at_once=batch_size,
            lowest_score=score_threshold,
        )
    try:
        with (
            _progress() as progress,
            ResultWriter(model, out_dir, opacity=opacity, fps=fps) as writer,
            model.low_scores_kept(score_threshold),
        ):
            task = progress.add_task('Predicting', total=count_frames(media))
            frames = read_frames(
                media, left_out, loader=model.loader, max_megapixels=max_megapixels
            )
            for batch in batches(frames, 1 if tiling else batch_size):
                for frame, sample in _infer(infer, batch, left_out):
                    with delayed_interrupt():
                        result = model.result(frame, sample, score_threshold=score_threshold)
                        try:
                            writer.write(result)
                        except Exception as error:
                            _leave_out(frame, error, left_out)
                            continue
                        outcome.predicted += 1
                        progress.advance(task)
    except KeyboardInterrupt:
        outcome.interrupted = True
    if not (outcome.predicted or outcome.interrupted) and left_out.unexpected is not None:
        raise left_out.unexpected
    return outcome


class ResultWriter:
    """Writes the results of images, and draws them into images and videos.

    As a context manager, it completes videos and lists at the end of the ``with`` block, even after
    an exception.

    Args:
        model: The model whose results are written.
        out_dir: Folder of the results.
        opacity: Opacity of drawn masks and label maps, 0 to 1.
        fps: Frames per second of the videos; None means that of the input.
    """

    def __init__(
        self,
        model: Model,
        out_dir: Path,
        *,
        opacity: float,
        fps: float | None,
    ) -> None:
        self._out_dir = out_dir
        self._files = ResultFiles(model, out_dir)
        self._opacity = opacity
        self._fps = fps
        self._video: Video | None = None
        self._writer: VideoWriter | None = None

    def __enter__(self) -> 'ResultWriter':
        return self

    def __exit__(self, *exception: object) -> None:
        with delayed_interrupt(), ExitStack() as stack:
            stack.callback(self._files.close)
            stack.callback(self._finish_video)

    def write(self, result: Result) -> None:
        """Writes the result of an image.

        Args:
            result: The result. Those of one video must be written consecutively.

        Raises:
            UserError: A file cannot be written.
            ValueError: The drawing is too large for its image format; nothing is written.
        """
        frame = result.frame
        drawing = result.draw(opacity=self._opacity)[..., ::-1]
        try:
            if frame.video is None:
                path = _drawing_path(frame.name, self._out_dir, is_video=False)
                content = encode_image(path.suffix, drawing)
                self._files.write(result)
                write_bytes(path, content)
            else:
                if self._writer is None or frame.video is not self._video:
                    self._writer = self._start_video(frame, frame.video, drawing)
                self._files.write(result)
                self._writer.write(np.ascontiguousarray(drawing))
        except OSError as error:
            raise UserError(str(error)) from error

    def _start_video(self, frame: Frame, video: Video, drawing: np.ndarray) -> VideoWriter:
        self._finish_video()
        name = os.path.dirname(frame.name)
        # Remove the results of an earlier, longer run, which would follow those of this one.
        for path in (self._out_dir / 'results' / name).glob('*.*'):
            if path.stem.isdecimal():
                path.unlink()
        self._video = video
        return VideoWriter(
            _drawing_path(name, self._out_dir, is_video=True),
            fps=self._fps or video.fps(),
            size=drawing.shape[:2],
        )

    def _finish_video(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _SpeedColumn(ProgressColumn):
    """Shows images per second."""

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


def _infer(
    infer: Infer, batch: Sequence[Frame], left_out: LeftOut
) -> Iterable[tuple[Frame, BaseDataElement]]:
    """Predicts a batch; if that fails, predicts each image alone and leaves out those that fail."""
    try:
        samples = infer(batch)
    except Exception as error:
        if len(batch) == 1:
            _leave_out(batch[0], error, left_out)
            return []
        return [found for frame in batch for found in _infer(infer, [frame], left_out)]
    return zip(batch, samples, strict=True)


def _leave_out(frame: Frame, error: Exception, left_out: LeftOut) -> None:
    """Records that an image cannot be predicted."""
    if frame.medium is None:
        raise error
    height, width = frame.image.shape[:2]
    left_out.add(frame.medium, error, doing=f'cannot be predicted, of {width} x {height} pixels')


def _drawing_path(name: str, out_dir: Path, *, is_video: bool) -> Path:
    return out_dir / (f'videos/{name}.mp4' if is_video else f'images/{name}.jpg')
