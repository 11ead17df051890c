"""The bodies of requests. Responses are plain dicts: they are made once for each step."""
