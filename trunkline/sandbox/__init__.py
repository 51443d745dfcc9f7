"""Where untrusted commands run. Nothing is built here yet."""
