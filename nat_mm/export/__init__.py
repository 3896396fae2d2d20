"""Models as ONNX files: what they compute, how they are checked, quantized and run.

`nat_mm.export.model` puts together what is exported of a model, `nat_mm.export.files` checks and
writes it.
"""
