"""Defines the exceptions whose message is for the user."""


class UserError(Exception):
    """An error that the user can fix.

    ``str(error)`` is one line that names the setting or file, its value and the remedy. The command line prints it
    without a traceback and exits with ``exit_code``.
    """

    exit_code = 1


class SpecError(UserError):
    """An invalid request: an unknown key, profile or option, or a value out of range."""

    exit_code = 2
