"""What is kept of trainings: keys, rows and tables."""
