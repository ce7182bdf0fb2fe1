"""What can be wrong with the choices and the atlases a user hands over."""


class ChoiceError(ValueError):
    """A processing choice is unknown, or two choices exclude each other."""


class AtlasError(ValueError):
    """An atlas, or the table that describes its regions, cannot be used."""
