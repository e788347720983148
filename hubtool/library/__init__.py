"""The user's own collection: index, install, targets, sidecars, prompts."""
