"""The stages of training: tokenizer, transformer and light decoder, with their losses."""
