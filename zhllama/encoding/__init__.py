"""The fast encoder: tables built from a vocabulary, and the compiled loops that read them."""
