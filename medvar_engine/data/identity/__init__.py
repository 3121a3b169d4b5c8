"""Who and what a series shows, and pseudonyms for patients."""
