"""Limits what the page's visitors may use of the server's resources; listed in docs/tools.md."""

FILE_MEGABYTES = 20
"""Size of the largest file that is accepted."""

MEGAPIXELS = 50
"""Size of the largest image that is decoded, because a small file can contain a huge one."""

LONGEST_SIDE = 1333
"""Longest side of an image passed to the model, in pixels; larger images are downscaled."""

VISITORS = 50
"""Number of visitors whose results are kept; those of the least recent visitor go first."""

KEPT_MEGABYTES = 400
"""Total size of the results that are kept, in memory and as files."""

WAITING_MEGABYTES = 400
"""Total size of uploads that are being received or are waiting for a model to read them."""

WAITING_FILES = 1000
"""Number of such uploads; above the number of connections, so that slow ones cannot use up all."""

WAITING_SECONDS = 900
"""Time after which an upload that no model has read is removed."""

QUEUE_LENGTH = 200
"""Number of events of all visitors that may wait for a model."""

EVENTS_PER_VISITOR = 8
"""Number of events of one visitor that may wait, or whose results have not been fetched."""

EVENT_KILOBYTES = 16
"""Size of the largest message from the page about one event."""

PAGES = 500
"""Number of open pages whose state Gradio keeps, which takes about 0.1 MB each."""

STREAMS = 300
"""Number of connections that may stay open to wait for results: two for each open page.
`nat_mm.serving.connections` has the other limits on connections."""

SHOWN_NAME = 100
"""Number of characters of a file name that are shown."""
