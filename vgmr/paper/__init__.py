"""What the paper says, apart from what was measured."""
