"""The identity of series (patient and content), and pseudonyms of patients."""
