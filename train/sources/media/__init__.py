"""Images, video and audio as the data of a run."""
