"""Builds the page: its elements, and the handler that each event calls."""

from pathlib import Path

import gradio as gr

from nat_mm.inference.drawing import SCORE_THRESHOLD
from nat_mm.web.bounds import FILE_MEGABYTES, LONGEST_SIDE
from nat_mm.web.handlers import Handlers
from nat_mm.web.models import LOWEST_SCORE

TITLE = 'Neighborhood attention'
START = f"""
<div class="hint">
  <strong>Drop an image, or choose one of the scenes</strong>
  <span>The model runs on the computer that serves this page; nothing is sent anywhere else.
  Images with a side of more than {LONGEST_SIDE} pixels are made smaller first.</span>
</div>
"""
IMAGE = {'interactive': False, 'show_label': False, 'buttons': ['fullscreen'], 'height': 410}
QUEUED = {
    # Only one event at a time uses models, and it sees the state that the previous one left.
    'concurrency_id': 'models',
    'concurrency_limit': 1,
    'api_visibility': 'private',
    # Handlers get the raw values from browsers; Gradio would raise a traceback for invalid ones.
    'preprocess': False,
    'postprocess': False,
}
LOOK = {
    # The fonts of the visitor's system, as others would have to be downloaded.
    'theme': gr.themes.Default(
        primary_hue='teal',
        font=['system-ui', 'sans-serif'],
        font_mono=['ui-monospace', 'monospace'],
    ),
    'css_paths': Path(__file__).with_name('page.css'),
}


def build_page(handlers: Handlers) -> gr.Blocks:
    """Builds the page.

    Args:
        handlers: Handlers of its events.

    Returns:
        The page, ready to be launched.
    """
    names = list(handlers.models)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(
            f'<h1>{TITLE}</h1><p>What a NAT or DiNAT model finds in an image, and what each of '
            'its tokens attends to</p>',
            elem_id='title',
            padding=False,
        )
        with gr.Row():
            with gr.Column(scale=0, min_width=300):
                model = gr.Dropdown(names, value=names[0], label='Model', elem_id='model')
                known = gr.HTML(elem_id='known', padding=False)
                upload = gr.File(
                    label=f'Image, at most {FILE_MEGABYTES} MB', height=110, elem_id='upload'
                )
                examples = gr.Gallery(
                    handlers.examples,
                    label='Generated scenes',
                    columns=3,
                    height='auto',
                    object_fit='cover',
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    elem_id='examples',
                )
                threshold = gr.Slider(
                    LOWEST_SCORE,
                    1,
                    value=SCORE_THRESHOLD,
                    step=0.05,
                    label='Lowest score',
                    elem_id='threshold',
                )
            with gr.Column(scale=1):
                start = gr.HTML(START, padding=False)
                with gr.Row(visible=False) as results:
                    with gr.Column(min_width=300):
                        image = gr.Image(elem_id='image', **IMAGE)
                        status = gr.HTML(elem_id='status', padding=False)
                        legend = gr.HTML(elem_id='legend', padding=False)
                        files = gr.File(label='Download', interactive=False, elem_id='files')
                    with gr.Column(min_width=300):
                        hint = gr.HTML(padding=False)
                        attention = gr.Image(visible=False, elem_id='attention', **IMAGE)
                        with gr.Row() as choices:
                            stage = gr.Dropdown(label='Stage', min_width=80, elem_id='stage')
                            block = gr.Dropdown(label='Block', min_width=80, elem_id='block')
                            head = gr.Dropdown(label='Head', min_width=80, elem_id='head')
                        caption = gr.HTML(elem_id='caption', padding=False)

        layer = [stage, block, head]
        seen = [attention, hint, caption]
        offered = [threshold, hint, choices, *layer]
        drawn = [image, status, legend, files]
        found = [start, results, *drawn, *seen]
        busy = {'show_progress_on': [upload, image], **QUEUED}
        quiet = {'show_progress': 'hidden', **QUEUED}

        page.load(handlers.offer, model, offered, **quiet).then(
            handlers.describe, model, known, **quiet
        )
        page.unload(handlers.leave)
        upload.upload(handlers.upload, [upload, model, threshold], found, **busy)
        examples.select(handlers.choose_example, [model, threshold], found, **busy)
        chosen = model.input(handlers.offer, model, offered, **quiet)
        chosen.then(handlers.describe, model, known, **quiet)
        chosen.then(handlers.choose_model, [model, threshold], found, **busy)
        threshold.change(handlers.redraw, threshold, drawn, trigger_mode='always_last', **quiet)
        image.select(handlers.click, layer, seen, **quiet)
        look = {'fn': handlers.look, 'inputs': layer, 'outputs': seen, **quiet}
        stage.input(handlers.choose_stage, [model, stage], [block, head], **quiet).then(**look)
        block.input(**look)
        head.input(**look)
    return page
