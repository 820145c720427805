"""A run that answers: an OpenAI-compatible server, and a chat in the terminal."""
