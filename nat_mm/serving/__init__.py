"""A model behind HTTP: what ``nat-mm serve`` runs, in part shared with the page of `nat_mm.web`."""
