"""The conformance kit: drives a capture proxy through hard cases and checks its record against what the engine sampled."""
