"""The inside of `zhllama.encode`: tables made of a vocabulary, and the compiled loops that read them."""
