"""Run directories: what they hold, how an experiment is stored, how a run starts from another."""
