"""Bridges to other projects' capture servers: each file runs in its own project's environment, as a program. Owns no case."""
