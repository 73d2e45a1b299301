"""The rules of ``marin-trace lint``: one function each, from a module to findings."""
