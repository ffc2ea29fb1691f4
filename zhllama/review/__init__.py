"""Review of data by people: rows, filters, decisions in an append-only journal, agreement, a local page, and export."""
