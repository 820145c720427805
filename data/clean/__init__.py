"""Which documents are worth training on: duplicates, rules of quality, languages, harmful content, evaluation sets."""
