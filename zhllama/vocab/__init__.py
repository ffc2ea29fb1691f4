"""Vocabularies: train, extend, prune and audit them."""
