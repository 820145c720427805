"""Dialogues judged by how well turns follow and whether they contradict."""
