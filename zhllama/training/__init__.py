"""Training: trainable rows without copies, a fused loss, packed blocks, atomic checkpoints, on transformers' Trainer."""
