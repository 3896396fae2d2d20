"""Exports models to ONNX files, and checks, quantizes and runs these.

`nat_mm.export.model` assembles what is exported from a model; `nat_mm.export.files` checks and
writes it.
"""
