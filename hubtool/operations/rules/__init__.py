"""Validation rules: one module a subject, each a list of functions that yield problems."""
