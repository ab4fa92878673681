"""Which evaluation rows stand in the training text, and what scores are without them."""
