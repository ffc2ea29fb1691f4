"""Client for OpenAI-compatible servers: retries, rate limiting, batches, and a journal of every raw reply."""
