"""What `trunkline bench` and `trunkline grid` run. Owns no part of a run."""
