"""One update of the train state, and its parts."""
