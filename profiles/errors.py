"""The one exception a person is meant to read."""


class UserError(Exception):
    """A mistake or a condition the person can mend.

    ``str(error)`` is one line that names the thing, the value and the way out; the command line prints it without a
    traceback and exits with ``exit_code``.
    """

    exit_code = 1


class SpecError(UserError):
    """What was asked for cannot be meant: an unknown key, profile or option, a value out of range."""

    exit_code = 2
