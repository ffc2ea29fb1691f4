"""Evaluation of models: bits per byte, lm-eval tasks, and answers judged by a model, references or rewards."""
