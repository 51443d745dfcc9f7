"""The local engine, its server and its client. Owns no HTTP towards agents."""
