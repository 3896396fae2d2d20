"""Integrations: NATTEN's old functions, Hugging Face's models and the Hugging Face Hub.

Nothing here is imported by the rest of nat_mm.
"""
