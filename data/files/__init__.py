"""Files as they are read and written: text, JSON, folders, remote storage, standard streams."""
