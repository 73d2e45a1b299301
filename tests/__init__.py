"""The test suite: a package, so that tests can share modules (an installed package is called `tests` too)."""
