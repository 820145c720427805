"""What a user gives as media: folders, tables, JSON lines, archives; each record becomes a sample."""
