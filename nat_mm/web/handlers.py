"""What happens on the page, for each visitor apart."""

import shutil
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr

from nat_mm.cli.files import write_image
from nat_mm.cli.inputs import Frame
from nat_mm.web.attention import draw_attention, list_stages
from nat_mm.web.examples import write_examples
from nat_mm.web.legend import write_legend
from nat_mm.web.models import Finding, PageModel
from nat_mm.web.uploads import UploadError, read_upload

ALL_HEADS = -1
"""Choice of the mean over all heads."""

Point = tuple[float, float]


class Handlers:
    """The functions behind the page's events.

    What a visitor sees lives in Gradio's state of the session, and their files in a folder of the
    session; here is only what all visitors share. The functions are to be called one at a time.

    Args:
        models: The models to choose from; their names differ.
        folder: Where examples and the folders of sessions go.
    """

    def __init__(self, models: Sequence[PageModel], folder: Path) -> None:
        self.models = {model.name: model for model in models}
        self.folder = folder
        self.examples = write_examples(folder / 'examples')
        self.stages = {model.name: list_stages(model) for model in models}

    def upload(
        self, path: str | None, model: str, threshold: float, request: gr.Request
    ) -> tuple | dict:
        """Finds what is in an uploaded file; says so if it is no picture."""
        try:
            frame = read_upload(Path(path))
        except UploadError as error:
            gr.Warning(escape(str(error)), title='Please choose another file')
            return gr.skip()
        return self._find(frame, model, threshold, request)

    def choose_example(
        self, event: gr.SelectData, model: str, threshold: float, request: gr.Request
    ) -> tuple:
        """Finds what is in one of the example pictures."""
        return self._find(read_upload(self.examples[event.index]), model, threshold, request)

    def choose_model(
        self, model: str, finding: Finding | None, threshold: float, request: gr.Request
    ) -> tuple | dict:
        """Finds what another model sees in the same picture."""
        if finding is None:
            return gr.skip()
        return self._find(finding.frame, model, threshold, request)

    def redraw(
        self, finding: Finding | None, threshold: float, request: gr.Request
    ) -> tuple | dict:
        """Draws the same finding with another threshold: picture, status, legend, files."""
        if finding is None:
            return gr.skip()
        folder = self._folder(request)
        shutil.rmtree(folder, ignore_errors=True)
        model = self.models[finding.model]
        started = time.perf_counter()
        drawing = model.draw(finding, threshold=threshold, folder=folder)
        seconds = time.perf_counter() - started
        height, width = finding.frame.image.shape[:2]
        status = (
            f'<strong>{escape(finding.frame.file_name)}</strong>, {width} × {height} pixels · '
            f'model {finding.seconds:.2f} s · drawing {seconds:.2f} s'
        )
        nothing = f'No object has a score of at least {threshold:.2f}.'
        legend = write_legend(drawing.entries) if drawing.entries else nothing
        return str(drawing.picture), status, legend, [str(path) for path in drawing.files]

    def click(
        self,
        event: gr.SelectData,
        finding: Finding | None,
        stage: int,
        block: int,
        head: int,
        request: gr.Request,
    ) -> tuple | dict:
        """Draws what the token under a click attends to: point and `look`."""
        if finding is None or not self.stages[finding.model]:
            return gr.skip()
        # Browsers give the middle of a screen's pixel, rounded.
        point = tuple(
            min(value / finding.enlargement, side - 1)
            for value, side in zip(event.index, finding.frame.image.shape[1::-1], strict=True)
        )
        return point, *self.look(finding, point, stage, block, head, request)

    def look(
        self,
        finding: Finding | None,
        point: Point | None,
        stage: int,
        block: int,
        head: int,
        request: gr.Request,
    ) -> tuple | dict:
        """Draws what the token under a point attends to: picture, hint, caption."""
        if point is None:
            return gr.skip()
        drawn, text = draw_attention(
            self.models[finding.model],
            finding,
            point=point,
            stage=stage,
            block=block,
            head=None if head == ALL_HEADS else head,
        )
        path = self._folder(request) / 'attention.png'
        write_image(path, drawn)
        return gr.Image(str(path), visible=True), gr.HTML(visible=False), text

    def choose_stage(self, model: str, stage: int) -> tuple[gr.Dropdown, gr.Dropdown]:
        """Offers the blocks and heads of a stage."""
        chosen = self.stages[model][stage]
        blocks = [(str(block), block) for block in range(chosen.blocks)]
        heads = [('mean', ALL_HEADS), *((str(head), head) for head in range(chosen.heads))]
        return (
            gr.Dropdown(blocks, value=chosen.blocks - 1),
            gr.Dropdown(heads, value=ALL_HEADS),
        )

    def offer(self, name: str) -> tuple:
        """Offers what a model has: threshold, hint, choices, stage, block, head."""
        stages = self.stages[name]
        threshold = gr.Slider(visible=self.models[name].has_threshold)
        hint = (
            '<strong>Click on the picture</strong>'
            '<span>to see what the token under that point attends to.</span>'
            if stages
            else '<span>The backbone of this model has no neighborhood attention.</span>'
        )
        hint = gr.HTML(f'<div class="hint">{hint}</div>', visible=True)
        if not stages:
            return threshold, hint, gr.Row(visible=False), gr.skip(), gr.skip(), gr.skip()
        names = [(f'{i} ({stage.stride} px)', i) for i, stage in enumerate(stages)]
        # The stage of most layers, in all architectures.
        stage = min(2, len(stages) - 1)
        return (
            threshold,
            hint,
            gr.Row(visible=True),
            gr.Dropdown(names, value=stage),
            *self.choose_stage(name, stage),
        )

    def leave(self, request: gr.Request) -> None:
        """Removes the files of a visitor who has gone."""
        shutil.rmtree(self._folder(request), ignore_errors=True)

    def _find(self, frame: Frame, model: str, threshold: float, request: gr.Request) -> tuple:
        finding = self.models[model].find(frame)
        forgotten = (None, gr.Image(None, visible=False), gr.HTML(visible=True), '')
        return finding, *self.redraw(finding, threshold, request), *forgotten

    def _folder(self, request: gr.Request) -> Path:
        return self.folder / request.session_hash
