"""Tasks: what people fine-tune for. Each file reads examples, puts them before a model of any family, and scores its answers."""
