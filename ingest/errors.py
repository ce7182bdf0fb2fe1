"""What can go wrong on the way in."""


class InputError(ValueError):
    """A published file, or what the user asked of it, is wrong; the message says where and what to do."""


class FetchError(RuntimeError):
    """A download could not be completed although the request was sound."""


class RefusedError(Exception):
    """What came is not what was published: nothing of it is kept. A caller of fetch sees a FetchError."""


class DamagedError(RefusedError):
    """What came is broken, which another download may mend."""
