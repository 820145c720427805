"""Learning where the data is: who the clients are, how updates travel, and how they are added without being seen."""
