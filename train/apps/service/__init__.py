"""Customer service: questions answered by templates and passages, or handed to a person."""
