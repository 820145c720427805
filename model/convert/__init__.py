"""Other people's weights as ours, one file a family. Files are read in train/; here are names and shapes alone."""
