"""What can go wrong on the way in."""


class InputError(ValueError):
    """A published file, or what the user asked of it, is wrong; the message says where and what to do."""


class FetchError(RuntimeError):
    """A download could not be completed although the request was sound."""
