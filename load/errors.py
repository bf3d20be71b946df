"""What can go wrong in the load room. What a server does wrong is no error here: it is a result.

LoadError        a run that cannot start: a bad argument, file, address or process id
"""

from __future__ import annotations


class LoadError(Exception):
    """A run that cannot start or go on. `str()` is one line that says what is wrong and where."""
