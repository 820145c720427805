"""What a run will cost, before it starts: memory, FLOPs, collectives, time."""
