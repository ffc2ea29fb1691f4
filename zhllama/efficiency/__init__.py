"""How finely tokenizers cut text: counting, the figures, and the report's page."""
