"""Running, batching and publishing notebooks; what a notebook imports from here is in `vgmr.notebook.lesson`."""
