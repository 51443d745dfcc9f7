"""The factory of software tasks: changes of real projects, rebuilt, run, told and varied until a machine can verify them."""
