"""What the tests of a software task need beside Python and pytest: asked for, resolved, downloaded by hash, installed in a sandbox."""
