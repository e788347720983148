"""One sidecar format each."""
