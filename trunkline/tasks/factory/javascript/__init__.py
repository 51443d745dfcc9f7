"""JavaScript for the factory: packages of the npm registry, locked and installed in a sandbox, and the projects' own test runners."""
