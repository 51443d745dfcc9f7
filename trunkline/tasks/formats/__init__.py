"""Task formats of others, in and out: Harbor's directories and SWE-bench's instances. Owns no verdict."""
