"""Running, batching and publishing notebooks."""
