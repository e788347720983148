"""Functions of adapters and checkpoints: convert, validate, inspect, extract."""
