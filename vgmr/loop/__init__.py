"""What the training loop is made of: steps, several seeds in one pass, graphs on a GPU."""
