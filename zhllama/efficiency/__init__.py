"""Tokenization efficiency: counting, figures, the report's page, and advice on extending."""
