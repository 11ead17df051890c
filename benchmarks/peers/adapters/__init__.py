"""One file per peer: how it loads a checkpoint and continues token ids. Each runs in that peer's environment."""
