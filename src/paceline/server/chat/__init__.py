"""Conversations: messages to a prompt by the model's template, and its tokens to text, reasoning and calls."""
