"""Models: loading, growing the vocabulary, row initialization, and export."""
