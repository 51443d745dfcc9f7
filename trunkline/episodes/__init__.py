"""One attempt end to end. Owns no scheduling."""
