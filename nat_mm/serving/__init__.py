"""Serves a model over HTTP for ``nat-mm serve``; partly shared with the page of `nat_mm.web`."""
