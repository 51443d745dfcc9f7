"""JavaScript for the factory: what projects say of themselves, how their tests are run, and what their tasks are judged with."""
