"""Tokenization efficiency: token counts, figures, the report, and advice on extending a vocabulary."""
