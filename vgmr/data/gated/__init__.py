"""Data sets that need registration, and readers of their formats."""
