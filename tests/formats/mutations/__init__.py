"""Files damaged at random, by number: each is refused in a sentence of our own, or loaded and decoded with."""
