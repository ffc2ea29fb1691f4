"""Makes the items of tasks_zh: cloze, characters, translation pairs and sentiment, from shipped or given text."""
