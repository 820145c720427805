"""What a corpus holds, document by document."""

from data.text.shards import Corpus


def documents(path, split="validation"):
    part = Corpus(path).split(split)
    return [part.read(number).tolist() for number in range(part.documents)]
