"""Tables of papers: what a claim is, the commands that test it, and what came out."""
