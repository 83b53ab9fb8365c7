"""What the training loop is made of: refusals, steps, one seed or several in one pass, graphs on a GPU."""
