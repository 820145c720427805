"""The one exception for what the user can fix."""


class UserError(Exception):
    """An error that the user can fix: what is wrong and where on the first line, how to fix it on the second.

    The command line prints it after `omnia: ` and exits with `code`, without a traceback.
    """

    code = 2

    def __init__(self, what: str, mend: str = ""):
        super().__init__(f"{what}\n{mend}" if mend else what)


class MissingData(UserError):
    """Data is not where it was said to be."""

    def __init__(self, what: str, mend: str, path: str):
        super().__init__(what, mend)
        self.path = path
