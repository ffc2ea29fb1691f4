"""Inference: a conversation in the terminal, an OpenAI-compatible server, a page in the browser."""
