"""Models that others published, brought in as runs, and runs written as others read them. Names and shapes: model/convert/."""
