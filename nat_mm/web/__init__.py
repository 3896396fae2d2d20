"""Implements the page of ``nat-mm web-demo``: a model's view of an image, in the browser."""

import os

# Gradio would report every start to its makers and ask them for the newest version. It reads these
# variables when it is imported, which only modules of this package do.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
# It would also record all events, and summarize them anew after each.
os.environ['GRADIO_ANALYTICS_MAX_EVENTS'] = '1'
