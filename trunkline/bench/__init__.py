"""What `trunkline bench` runs. Nothing is built here yet."""
