"""What the page's visitors may use of the computer that serves it; docs/tools.md lists it."""

FILE_MEGABYTES = 20
"""Of the largest file that is taken."""

MEGAPIXELS = 50
"""Of the largest image that is decoded: a small file can hold a huge one."""

LONGEST_SIDE = 1333
"""Of an image, in pixels, as the model gets it; larger ones are made smaller."""

VISITORS = 50
"""Whose findings are kept; those of the one longest away are dropped first."""

KEPT_MEGABYTES = 400
"""Of all findings that are kept, in memory and as files."""

WAITING_MEGABYTES = 400
"""Of all uploads that are being received or wait for the model, which removes them."""

WAITING_FILES = 1000
"""Such uploads; more than there are connections, so that slow ones alone do not fill it."""

WAITING_SECONDS = 900
"""After which an upload that no model has looked at is removed."""

QUEUE_LENGTH = 200
"""Events of all visitors that wait for a model."""

EVENTS_PER_VISITOR = 8
"""Events of one visitor that wait, or whose results have not been fetched."""

EVENT_KILOBYTES = 16
"""Of what the page says about one event."""

PAGES = 500
"""Open pages of which Gradio remembers what they show; it takes about 0.1 MB for each."""

STREAMS = 300
"""Of the open connections, how many may stay open to wait for results: two for each open page.
`nat_mm.serving.connections` has the other bounds of connections."""

SHOWN_NAME = 100
"""Characters of a file's name that are shown."""
