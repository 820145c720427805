"""The packages that decode media (extra: media), loaded on first use."""

from data.errors import UserError
from data.media.kinds import Kind

CONTAINERS = {  # of libavformat, whose protocols stay closed: a file must not make us read another
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,ogg,mp3,wav,flac,aac,mpegts,mpeg,flv,asf",
    "protocol_whitelist": "",
}


def describe(error: Exception) -> str:
    """One line of a package's error, for a message."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _missing(package):
    return UserError(f"Images, videos and recordings need the package {package}.", 'pip install "omnia[media]"')


def load_pillow():
    try:
        from PIL import Image
    except ImportError:
        raise _missing("Pillow") from None
    return Image


def load_av():
    try:
        import av
        import av.video.reformatter
    except ImportError:
        raise _missing("av") from None
    return av


def load_soundfile():
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: its library is missing
        raise _missing("soundfile") from None
    return soundfile


def load_soxr():
    try:
        import soxr
    except ImportError:
        raise _missing("soxr") from None
    return soxr


def require(kind: Kind) -> None:
    """Load what decodes media of a kind; UserError where a package is missing."""
    for load in {"image": (load_pillow,), "video": (load_av,), "audio": (load_soundfile, load_av, load_soxr)}.get(kind, ()):
        load()
