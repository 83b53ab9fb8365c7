"""What the repository keeps of trainings: keys, rows and tables, and the command that makes them."""
