"""Conversations: read from common formats, cleaned, split, and turned into ids by a chat template."""
