"""The user's metric: how it is called, and what it said, checked. Uses support alone."""
