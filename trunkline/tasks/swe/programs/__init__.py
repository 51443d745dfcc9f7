"""Trusted programs that run inside sealed sandboxes, each a file by itself. Owns no code of the host; nothing here imports trunkline."""
