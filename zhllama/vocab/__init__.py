"""Vocabularies: train one, merge two, prove the result."""
