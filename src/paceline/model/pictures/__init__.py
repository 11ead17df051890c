"""Pictures in prompts: towers make features of them, which take the place of placeholders' embeddings."""
