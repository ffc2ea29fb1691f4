"""Give a language model Chinese, and prove every step."""
