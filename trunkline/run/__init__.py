"""The conductor, the processes, the recipe, the command line. The only room that wires the others."""
