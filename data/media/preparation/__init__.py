"""Media into shards: the plan, its tasks, what is found twice, and the summary."""
