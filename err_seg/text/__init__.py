"""Class names: vocabularies, the prompts made of them, and their embeddings."""
