"""The one exception for what the user can fix."""


class UserError(Exception):
    """A mistake that the user can fix: what and where on the first line, how to fix it on the second.

    The front door prints it after `omnia: ` and exits with `code`; no traceback is shown.
    """

    code = 2

    def __init__(self, what: str, mend: str = ""):
        super().__init__(f"{what}\n{mend}" if mend else what)


class MissingData(UserError):
    """Data is not where it was said to be."""

    def __init__(self, what: str, mend: str, path: str):
        super().__init__(what, mend)
        self.path = path
