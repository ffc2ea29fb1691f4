"""Conversations: read from any of the usual files, cleaned, and turned into ids by a chat template."""
