"""The page of ``tools/web_demo.py``: a model's view of an image, in the browser."""

import os

# Gradio would tell its makers of every start and ask them for its newest version; it reads these
# when it is imported, which only modules of this package do.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
# It would also keep a record of every event, to be summed up anew after each.
os.environ['GRADIO_ANALYTICS_MAX_EVENTS'] = '1'
