"""Neighborhood attention for other projects' code: NATTEN's old functions, Hugging Face's models.

Nothing here is imported by the rest of nat_mm, and each module needs only what its name says.
"""
