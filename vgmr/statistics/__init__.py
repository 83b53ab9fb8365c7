"""What a comparison is made of: intervals, answers of runs, verdicts."""
