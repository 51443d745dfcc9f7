"""`trunkline bench tree`: forests against flat samples. Owns workloads, baseline and measurement; the trainer is the real one."""
