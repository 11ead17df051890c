"""From what people type to token ids, and from token ids back to text."""
