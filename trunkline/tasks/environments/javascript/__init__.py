"""What JavaScript tests need: packages of the npm registry, locked, installed in a sandbox, and programs that start projects' runners."""
