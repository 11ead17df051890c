"""OpenAI's Responses API, without a memory: each request brings its whole history."""
