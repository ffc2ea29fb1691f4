"""Training: pre-training, fine-tuning, reward models and DPO, with trainable rows, packing, checkpoints and plans."""
