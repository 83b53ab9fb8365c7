"""Where modalities meet: fusion heads, and the published fusion systems, one file each."""
