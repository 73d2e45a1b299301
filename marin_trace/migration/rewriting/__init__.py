"""Passes of ``marin-trace migrate``: each takes the text of a module and gives a text that means the same.

What to do is decided on the ``ast`` of a text, and done on its ``libcst``, so that comments and formatting stay. The
two meet in :class:`~marin_trace.migration.module.Span`.
"""
