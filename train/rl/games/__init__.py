"""Board games, learned by self-play."""
