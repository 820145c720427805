"""Writing: stories that keep to their sheets, adventures whose world the program keeps, verse in its form."""
