"""`trunkline bench overlap RUN_DIR`: how much the samples of a real run shared. Owns reading and statistics; the clock is bench/tree's."""
