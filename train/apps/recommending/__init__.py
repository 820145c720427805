"""A recommender: measures of items weighed by a ranker, lists made of them, and what a log tells of other orders."""
