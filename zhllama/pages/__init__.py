"""HTML pages: one base template, style sheet and script, the texts in every language, and one module for each page."""
