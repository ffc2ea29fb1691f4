"""Answers of models, judged: by another model, by reference answers, by a reward model."""
