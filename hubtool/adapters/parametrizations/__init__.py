"""One family of weight changes each: its tensors, its rank, its delta."""
