"""Other projects' code and places: NATTEN's old functions, Hugging Face's models and its Hub.

Nothing here is imported by the rest of nat_mm.
"""
