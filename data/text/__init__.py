"""Text: shards of token ids, and packed rows made of them."""
