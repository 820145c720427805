"""Other people's weights as ours and back, one file a family: names, shapes and settings. Files are read and written in train/bridge/."""
