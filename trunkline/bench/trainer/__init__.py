"""`trunkline bench trainer`: one RL step here and in TRL. Owns the same data for both, the two processes and the comparison."""
