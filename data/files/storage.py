"""Where bytes live: local paths, and addresses such as gs://bucket/folder or s3://bucket/folder through fsspec."""

import os
import tempfile

from data.errors import UserError


def cache_folder() -> str | None:
    """The folder of this project's caches, which may not be there yet; None where neither XDG_CACHE_HOME nor a home names one."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if folder.startswith("~") else os.path.join(folder, "omnia")


def can_write(folder: str) -> bool:
    """Whether a local folder is there, or could be made, and takes files."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def remote(path: str):
    """(file system, path inside it) of an address."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:  # ValueError: an unknown protocol
        raise UserError(f"{path}: {error}.", "Install the file system's package (gcsfs for gs://, s3fs for s3://).") from None


def read_bytes(path: str) -> bytes | None:
    """The whole of a small file; None when it does not exist."""
    try:
        if is_remote(path):
            system, inner = remote(path)
            return system.cat_file(inner)
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_atomically(path: str, content: bytes) -> None:
    """Writes a local file so that after a crash or power cut it is there whole, or as it was before."""
    folder = os.path.dirname(path) or "."
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=os.path.basename(path) + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # mkstemp makes it private
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Makes renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
