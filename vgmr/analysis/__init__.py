"""One file per question that a notebook asks of trained models."""
