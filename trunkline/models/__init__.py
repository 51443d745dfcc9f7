"""Decoder families, checkpoint IO, tokenizers. Owns no training and no sampling."""
