"""Rows of files as people have them: records, sentences with tags, questions on texts. Each reader gives all rows of a file, checked."""
