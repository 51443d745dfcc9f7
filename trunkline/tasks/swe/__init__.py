"""Software tasks: a pristine tree, hidden tests, an oracle, and a verdict that what is judged cannot forge. Owns no agent."""
