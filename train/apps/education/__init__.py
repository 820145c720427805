"""Education: short answers graded, exercises chosen, hints given."""
