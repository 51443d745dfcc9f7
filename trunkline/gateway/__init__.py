"""The HTTP wire between agents and the engine, and its record. Owns no sampling."""
