"""What is seen from outside of a server at work: metrics, logs, traces. Nothing that is served depends on it."""
