"""Errors that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. The command line prints the message alone, without a stack trace.

    The message names the file, line and field where there is one, and says what to do.
    """

    exit_code = 1
