"""Chinese instruction data from a model behind an OpenAI-compatible server: ask, journal, parse, filter, keep."""
