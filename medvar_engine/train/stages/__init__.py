"""What is trained: the tokenizer, the transformer, the preview decoder; each one's losses."""
