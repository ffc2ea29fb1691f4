"""Inference: chat, streaming, and the HTTP server with OpenAI's API and a chat page."""
