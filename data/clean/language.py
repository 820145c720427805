"""Which language a text is in: by its script, and within a script by the commonest words of each language.

Grammatical words are a quarter to a half of any running text, and few languages share them, so that their counts tell languages apart
from a line on; a text of names or numbers has none, and is of no known language.
"""

import functools
from typing import NamedTuple

import numpy as np

from data.clean.units import NAMES, Units, units_of

SCRIPT_LANGUAGES = {
    "han": "zh",
    "kana": "ja",
    "hangul": "ko",
    "greek": "el",
    "hebrew": "he",
    "thai": "th",
    "devanagari": "hi",
    "burmese": "my",
    "khmer": "km",
}
"""Languages that are told by their script alone; of several that use it, the commonest."""

COMMONEST = {"latin": "", "cyrillic": "ru", "arabic": "ar"}
"""What a text of a script is taken for that has none of the words below; its share is 0."""

WORDS = {
    "en": "the of a and to in is that it was for on are as with his they at be this have from or had by not but what all were we when "
    "your can there an which their if will each about how up out them then she many some so these would into has her him you he my "
    "me its who than been do did only could also after our two one man woman people wearing while why where must may",
    "de": "der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird "
    "bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch wurde sein ich du wir ihr "
    "mann frau ihre seine kann einige zwei während was wer welche welcher welches welchen wo wann warum wozu wieviele wofür",
    "fr": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec son ou sa mais comme nous "
    "vous aux cette ces été fait être leur ont elle deux ses était je tu homme femme très où si lui dont à sans quel quelle quels "
    "quelles pourquoi quand combien",
    "es": "de la que el en y los se del las un por con no una su para es al lo como más o pero sus le ha me si sin sobre este ya entre "
    "cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque qué sólo han yo hay vez puede todos así "
    "nos ni parte cuál cuáles quién quiénes cuánto cuántos cuántas cómo dónde cuándo",
    "it": "di che è la il un a per in una non sono mi ho con ma lo ha le si ti i da cosa come io al del della dei nel alla anche più gli "
    "questo delle se ci quando nella essere era loro suo sua dal due perché degli stato molto tra quale quali chi quanto quanti "
    "dove",
    "pt": "de a que o e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua ou ser quando "
    "muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos ter seus quem nas me esse eles são "
    "você",
    "nl": "de het een van en in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog naar door over hij ze wordt deze "
    "werd tot hebben heeft kan geen wel die ik je wij was of had worden meer dit onder zoals",
    "pl": "w i na z do się nie jest to że o jak po za od przez przy dla są co tym lub oraz był była było tego jego jej ale tak który "
    "która które ich tylko może jako już czy też pod",
    "sv": "och att det i en som på är av för med den till inte har de ett om han var jag men vi kan så från man när hade eller ut sig "
    "över vid hon nu mycket efter upp sin där under också",
    "tr": "bir ve bu da de için ile çok ne olarak daha olan gibi en ama kadar sonra var olduğu ki değil mi o her ben ya hem ise şey diye "
    "tarafından ancak kendi",
    "vi": "và của là có được trong cho không một các với người đã này những để khi từ đến như về tại cũng ra nhiều sẽ đó vào năm theo "
    "trên hay",
    "id": "yang dan di untuk dengan dari ini pada itu dalam tidak adalah akan ke oleh juga saya ada bisa atau karena lebih telah kami "
    "sebagai mereka tersebut dapat",
    "ru": "и в не на что с по как это он она они но к из у за от так же для о вы мы бы то был была было были его её их при или если "
    "только когда уже до также чтобы который которые может является году всё я ты какой какая какие каким какую кто где сколько "
    "почему чем кого",
    "uk": "і в не на що з як це він вона вони але до у за від так для та й є був була було були його її їх при або якщо тільки коли вже "
    "також щоб який які може року",
    "bg": "и в не на че с по как това той тя те но към от за са до се да е ще бе бил при или ако само когато вече също който които може",
    "ar": "في من على أن إلى التي الذي عن مع هذا هذه كان كانت ما لا أو بين بعد قبل كما هو هي لم كل قد ذلك حيث عند و ثم أي غير خلال منذ تم "
    "متى أين كم ماذا لماذا كيف الذين بها به إنه",
    "fa": "و در به از که این را با است برای آن یک خود تا کرد بر هم نیز می شد ها او یا باید دارد شود بود اما هر پس",
    "ur": "کے کی میں ہے اور سے کا کو اس کہ نے پر یہ ہیں کر تھا ایک بھی جو گیا وہ نہیں تو تھے یا",
}
"""The commonest words of languages that share a script. Chinese, Japanese and others need none."""

CHINESE = tuple("的是不了在有和这那我他也就都要为与之")
"""Characters that running Chinese has, as English has `the` and `of`."""

LANGUAGES = (*WORDS, *SCRIPT_LANGUAGES.values())


class Guess(NamedTuple):
    """A language of LANGUAGES, or "" where nothing tells. share: of the evidence that speaks for it, 0 to 1."""

    language: str
    share: float


def languages_of(units: Units) -> list[Guess]:
    """The language of each text."""
    size = len(units.ends)
    owner = np.repeat(np.arange(size), units.counts)
    scripts = np.bincount(owner * len(NAMES) + units.scripts, minlength=size * len(NAMES)).reshape(size, len(NAMES))
    known, weights = _words()
    place = np.minimum(np.searchsorted(known, units.hashes), len(known) - 1)
    hit = known[place] == units.hashes
    whose, which = owner[hit], weights[place[hit]]
    words = np.stack([np.bincount(whose, column, minlength=size) for column in which.T], axis=1)
    return [_guess(*row) for row in zip(scripts.tolist(), words, strict=True)]


def _guess(scripts, words):
    named = dict(zip(NAMES, scripts, strict=True))
    named["kana"] += named["han"] if named["kana"] > 0.1 * named["han"] else 0  # Japanese has kanji too
    named["han"] *= named["kana"] < named["han"]
    spaced = sum(named[script] for script in ("latin", "cyrillic", "arabic")) * CHARACTERS_OF_A_WORD
    alone = {script: named[script] for script in SCRIPT_LANGUAGES}
    script = max(alone, key=lambda one: alone[one])
    total = spaced + sum(alone.values())
    if total and alone[script] >= spaced:
        return Guess(SCRIPT_LANGUAGES[script], alone[script] / total)
    best = int(np.argmax(words))
    if not words[best]:
        script = max(COMMONEST, key=lambda one: named[one])
        return Guess(COMMONEST[script] if named[script] else "", 0.0)
    return Guess(tuple(WORDS)[best], float(words[best] / words.sum()) * spaced / total)


CHARACTERS_OF_A_WORD = 2
"""In scripts without spaces a word has about so many."""


@functools.cache
def _words() -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words in order, and for each the weight by which it speaks for each language: 1, divided among those that have it."""
    lists = [units_of(text.split()).hashes for text in WORDS.values()]
    known = np.unique(np.concatenate(lists))
    weights = np.zeros((len(known), len(lists)))
    for column, hashes in enumerate(lists):
        weights[np.searchsorted(known, hashes), column] = 1
    return known, weights / weights.sum(axis=1, keepdims=True)
