"""The inside of `zhllama.encoding.encoder`: tables made of a vocabulary, and the compiled loops that read them."""
