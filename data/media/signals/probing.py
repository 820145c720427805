"""What is known of a medium of any kind: by its header, or by decoding it to the end."""

from data.media.kinds import Examined, Facts, text_facts
from data.media.signals.images import examine_image, probe_image
from data.media.signals.sounds import examine_audio, probe_audio
from data.media.signals.videos import examine_video, probe_video


def probe(kind: str, content: str | bytes) -> Facts:
    """What is known of a part by its header; of a video by its packets and first frames; of a recording whose header does not say how long
    it is, by decoding it. What `examine` finds, if it finds no fault."""
    if isinstance(content, str):
        return text_facts(content)
    return {"image": probe_image, "video": probe_video, "audio": probe_audio}[kind](content)


def examine(kind: str, content: str | bytes) -> Examined:
    """Decodes an image and a recording to the end, and the keyframes of a video; Undecodable for one that breaks off."""
    if isinstance(content, str):
        return Examined(text_facts(content), (), None)
    return {"image": examine_image, "video": examine_video, "audio": examine_audio}[kind](content)
