"""What runs inside a sandbox, by Node alone: these files import nothing of Trunkline."""
