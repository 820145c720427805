"""The streams of pictures, clips, recordings and texts, beside what others read the same files with.

omnia reproduce streams
PEER_DATA names a Python with webdataset and mosaicml-streaming, PEER_AUDIO one with librosa (benchmarks/race.py).
"""

from train.reproduce.table import Better, Metric, Row, Table

KINDS = {
    "images": "JPEGs of 320 x 320, shuffled, against two processes that do nothing but decode with Pillow",
    "video": "frames of clips, against two processes of bare PyAV",
    "audio": "FLAC to log-mel patches, against two processes of librosa",
    "records": "texts, shuffled, against webdataset",
}


def get_table() -> Table:
    return Table(
        title="Streams of media and text",
        paper="Aizman et al. 2019 (WebDataset); Pillow, PyAV and librosa as they come",
        claim="Reading shuffled samples from our shards costs no more than decoding alone, or than reading with WebDataset.",
        metrics=(
            Metric("ratio", "rate", "of the peer's", lower_is_better=False, digits=2),
            Metric("ours", "samples", "a second", lower_is_better=False, digits=0),
        ),
        rows=tuple(Row(kind, what, (f"python benchmarks/race.py {kind} --rounds 3 --json",), alone=True) for kind, what in KINDS.items()),
        claims=tuple(Better(kind, 1.0) for kind in KINDS),
        note="Both sides by turns in one run, two processes each; a seed is another run of three rounds.",
    )
