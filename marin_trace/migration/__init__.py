"""From Marin's executor to marin_trace: what is left of the old style (lint), and rewriting it (migrate).

Owns the analysis of source text. Nothing of what it reads is imported or executed, so that it works on files whose
imports are not installed, and on files that do harm when they are run.
"""
