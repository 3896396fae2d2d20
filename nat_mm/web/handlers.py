"""Handles the page's events for each visitor separately."""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from nat_mm.files import write_image
from nat_mm.inference.drawing import SCORE_THRESHOLD
from nat_mm.inference.inputs import Frame
from nat_mm.inference.loading import ImageLoader
from nat_mm.web.attention import StageChoices, draw_clicked_window, list_stages
from nat_mm.web.examples import write_examples
from nat_mm.web.legend import write_legend
from nat_mm.web.models import LOWEST_SCORE, PageModel
from nat_mm.web.uploads import RefusalError, Uploads, read_upload
from nat_mm.web.visitors import Visit, Visitors

MEAN = 'mean'
"""Option for the mean over all heads."""

Choices = list[tuple[str, str]]
"""Options of a dropdown, each with the text that is shown and the value that is sent."""


def one_at_a_time(handler: Callable) -> Callable:
    """Makes handlers wait for each other, and shows a `RefusalError` to the visitor."""

    @functools.wraps(handler)
    def handle(*arguments: Any) -> Any:
        with arguments[0].lock:
            try:
                return handler(*arguments)
            except RefusalError as refusal:
                gr.Warning(escape(str(refusal)))
                return gr.skip()

    return handle


class Handlers:
    """The functions behind the page's events.

    They receive what browsers send, as far as `nat_mm.web.guard` lets it through: a number, a text
    or nothing for each option. Values that are not offered count as not chosen.

    Args:
        models: The models to choose from, with unique names.
        uploads: The files that visitors have sent.
        served: An empty folder from which browsers get files.
    """

    def __init__(self, models: Sequence[PageModel], uploads: Uploads, served: Path) -> None:
        self.models = {model.name: model for model in models}
        self.stages = {model.name: list_stages(model) for model in models}
        self.uploads = uploads
        self.served = served
        self.examples = write_examples(served / 'examples')
        self.visitors = Visitors()
        self.lock = threading.Lock()

    @one_at_a_time
    def upload(self, file: Any, model: Any, threshold: Any, request: gr.Request) -> tuple | dict:
        """Predicts an uploaded file; warns if it is not an image."""
        if file is None:
            return gr.skip()
        path = Path(file['path'])
        try:
            frame = read_upload(path, file['orig_name'], loader=self._loader(model))
        finally:
            self.uploads.remove(path.name)
        return self._find(frame, model, threshold, request)

    @one_at_a_time
    def choose_example(
        self, event: gr.EventData, model: Any, threshold: Any, request: gr.Request
    ) -> tuple | dict:
        """Predicts one of the example images."""
        if not _is_number(event.index) or event.index not in range(len(self.examples)):
            return gr.skip()
        frame = read_upload(self.examples[int(event.index)], loader=self._loader(model))
        return self._find(frame, model, threshold, request)

    @one_at_a_time
    def choose_model(self, model: Any, threshold: Any, request: gr.Request) -> tuple | dict:
        """Predicts the same image with another model."""
        visit = self.visitors.find(request.session_hash)
        # An image dropped in the meantime has already been predicted by this model; drawing it
        # again would replace the image under a click.
        if visit is None or visit.finding.model == self._model(model):
            return gr.skip()
        if not self._loader(model).loads_like(self._loader(visit.finding.model)):
            raise RefusalError(
                'This model reads files in a different way. Please drop or choose the image again.'
            )
        return self._find(visit.finding.frame(), model, threshold, request)

    @one_at_a_time
    def redraw(self, threshold: Any, request: gr.Request) -> tuple | dict:
        """Redraws a result with another threshold; updates image, status, legend and files."""
        visit = self.visitors.find(request.session_hash)
        # The page also sends this event when the slider appears.
        if visit is None or visit.threshold == _threshold(threshold):
            return gr.skip()
        drawn = self._draw(visit, threshold)
        self.visitors.make_room()
        return drawn

    @one_at_a_time
    def click(
        self, event: gr.EventData, stage: Any, block: Any, head: Any, request: gr.Request
    ) -> tuple | dict:
        """Draws what the token under a click attends to; see `look`."""
        visit = self.visitors.find(request.session_hash)
        if visit is None or not _is_point(event.index):
            return gr.skip()
        finding = visit.finding
        # Browsers report the middle of a screen pixel, rounded.
        visit.point = tuple(
            min(max(value, 0), (side - 1) * finding.enlargement) / finding.enlargement
            for value, side in zip(event.index, (finding.width, finding.height), strict=True)
        )
        return self._look(visit, stage, block, head)

    @one_at_a_time
    def look(self, stage: Any, block: Any, head: Any, request: gr.Request) -> tuple | dict:
        """Draws what the last clicked token attends to; updates image, hint and caption."""
        visit = self.visitors.find(request.session_hash)
        if visit is None or visit.point is None:
            return gr.skip()
        return self._look(visit, stage, block, head)

    def choose_stage(self, model: Any, stage: Any) -> tuple | dict:
        """Offers the blocks and heads of a stage."""
        model = self._model(model)
        if not self.stages[model]:
            return gr.skip()
        number, chosen = self._stage(model, stage)
        blocks, heads = offer_blocks(number, chosen), offer_heads(number, chosen)
        return (
            gr.update(choices=blocks, value=blocks[-1][1]),
            gr.update(choices=heads, value=heads[0][1]),
        )

    def describe(self, model: Any) -> str:
        """Describes a model and its classes as HTML."""
        return self.models[self._model(model)].describe()

    def offer(self, model: Any) -> tuple:
        """Offers a model's options; updates threshold, hint, choices, stage, block and head."""
        model = self._model(model)
        stages = self.stages[model]
        threshold = gr.update(visible=self.models[model].has_threshold)
        hint = (
            '<strong>Click on the image</strong>'
            '<span>to see what the token under that point attends to.</span>'
            if stages
            else '<span>The backbone of this model has no neighborhood attention.</span>'
        )
        hint = gr.update(value=f'<div class="hint">{hint}</div>', visible=True)
        if not stages:
            return threshold, hint, gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
        number, _ = self._stage(model, None)
        return (
            threshold,
            hint,
            gr.update(visible=True),
            gr.update(choices=offer_stages(stages), value=str(number)),
            *self.choose_stage(model, None),
        )

    @one_at_a_time
    def leave(self, request: gr.Request) -> None:
        """Removes what is kept for a visitor who has left."""
        self.visitors.leave(request.session_hash)

    def _find(self, frame: Frame, model: Any, threshold: Any, request: gr.Request) -> tuple:
        """Predicts an image, and returns the updates for ``found`` in `nat_mm.web.page`.

        These are start, results, image, status, legend, files, attention, hint and caption.
        """
        finding = self.models[self._model(model)].find(frame)
        visit = self.visitors.keep(request.session_hash, finding)
        drawn = self._draw(visit, threshold)
        self.visitors.make_room()
        hidden, visible = gr.update(visible=False), gr.update(visible=True)
        return hidden, visible, *drawn, gr.update(value=None, visible=False), visible, ''

    def _draw(self, visit: Visit, threshold: Any) -> tuple:
        finding = visit.finding
        visit.threshold = threshold = _threshold(threshold)
        folder = visit.renew_folder('found', inside=self.served)
        started = time.perf_counter()
        drawing = self.models[finding.model].draw(finding, threshold=threshold, folder=folder)
        seconds = time.perf_counter() - started
        status = (
            f'<strong>{escape(finding.file_name)}</strong>, {finding.width} × {finding.height} '
            f'pixels · model {finding.seconds:.2f} s · drawing {seconds:.2f} s'
        )
        nothing = f'No object has a score of at least {threshold:.2f}.'
        legend = write_legend(drawing.entries) if drawing.entries else nothing
        files = [_file(path, name) for name, path in drawing.files.items()]
        return files[0], status, legend, files

    def _look(self, visit: Visit, stage: Any, block: Any, head: Any) -> tuple | dict:
        finding = visit.finding
        if not self.stages[finding.model]:
            return gr.skip()
        # A click may arrive before the page shows the options of a newly chosen stage or model:
        # the previous options count as not chosen, which selects the defaults of the new ones.
        number, chosen = self._stage(finding.model, stage)
        blocks = [value for _, value in offer_blocks(number, chosen)]
        heads = [value for _, value in offer_heads(number, chosen)]
        drawn, text = draw_clicked_window(
            self.models[finding.model],
            finding,
            point=visit.point,
            stage=number,
            block=blocks.index(block) if block in blocks else len(blocks) - 1,
            # The first option is the mean.
            head=heads.index(head) - 1 if head in heads[1:] else None,
        )
        path = visit.renew_folder('attention', inside=self.served) / 'attention.png'
        write_image(path, drawn)
        self.visitors.make_room()
        file = _file(path, path.name)
        return gr.update(value=file, visible=True), gr.update(visible=False), text

    def _model(self, name: Any) -> str:
        return name if name in list(self.models) else next(iter(self.models))

    def _loader(self, model: Any) -> ImageLoader:
        return self.models[self._model(model)].model.loader

    def _stage(self, model: str, number: Any) -> tuple[int, StageChoices]:
        stages = self.stages[model]
        numbers = [value for _, value in offer_stages(stages)]
        # In all architectures, the third stage has the most layers.
        index = numbers.index(number) if number in numbers else min(2, len(stages) - 1)
        return index, stages[index]


def offer_stages(stages: Sequence[StageChoices]) -> Choices:
    """Returns the options for a model's stages."""
    return [(f'{index} ({stage.stride} px)', str(index)) for index, stage in enumerate(stages)]


def offer_blocks(number: int, stage: StageChoices) -> Choices:
    """Returns the options for the blocks of a stage, counted from 0."""
    return [(str(block), f'{number}.{block}') for block in range(stage.blocks)]


def offer_heads(number: int, stage: StageChoices) -> Choices:
    """Returns the options for the heads of a stage: their mean, and each head, from 0."""
    heads = [MEAN, *map(str, range(stage.heads))]
    return [(head, f'{number}.{head}') for head in heads]


def _file(path: Path, name: str) -> dict:
    """Describes a file for the page."""
    return FileData(path=str(path), orig_name=name, size=path.stat().st_size).model_dump()


def _threshold(value: Any) -> float:
    return value if _is_number(value) and LOWEST_SCORE <= value <= 1 else SCORE_THRESHOLD


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
