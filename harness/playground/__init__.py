"""The embedded world: shop arithmetic with known truth, and the tiny models that live in it."""
