"""Training: rows without copies, a loss that holds no logits, packed blocks, whole checkpoints; the Trainer drives."""
