"""Encoder-decoders: a source read once, and a decoder that is a target like another."""
