"""Tasks turned round: the tests are what an agent writes, and they are judged on trees of which they do not know which is right."""
