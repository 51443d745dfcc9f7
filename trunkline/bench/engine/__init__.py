"""`trunkline bench engine`: decoding speed of the local engine against transformers. Owns its parts; what a result is, is result.py's."""
