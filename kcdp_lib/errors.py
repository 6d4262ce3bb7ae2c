"""The one exception a user is meant to read."""


class KCDPError(ValueError):
    """Bad input, told in one sentence that says what to do."""
