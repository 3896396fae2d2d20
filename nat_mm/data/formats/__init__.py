"""Reads annotations of other formats and writes them as COCO."""
