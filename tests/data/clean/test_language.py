import pytest

from data.clean.language import LANGUAGES, WORDS, Guess, languages_of
from data.clean.units import units_of

SENTENCES = {
    "en": "The children were playing in the garden when it started to rain, and they ran into the house.",
    "de": "Die Kinder spielten gerade im Garten, als es zu regnen anfing, und sie liefen schnell in das Haus.",
    "fr": "Les enfants jouaient dans le jardin quand il a commencé à pleuvoir, et ils sont rentrés dans la maison.",
    "es": "Los niños jugaban en el jardín cuando empezó a llover, y entraron corriendo en la casa.",
    "it": "I bambini giocavano nel giardino quando ha cominciato a piovere, e sono corsi dentro la casa.",
    "pt": "As crianças estavam a brincar no jardim quando começou a chover, e elas correram para a casa.",
    "nl": "De kinderen speelden in de tuin toen het begon te regenen, en ze renden naar het huis.",
    "pl": "Dzieci bawiły się w ogrodzie, kiedy zaczęło padać, i pobiegły do domu, który był blisko.",
    "sv": "Barnen lekte i trädgården när det började regna, och de sprang in i huset.",
    "tr": "Çocuklar bahçede oynuyordu ve bir anda yağmur başladı, sonra daha çok ıslanmamak için eve koştular.",
    "vi": "Những đứa trẻ đang chơi trong vườn khi trời mưa và các em đã chạy vào nhà.",
    "id": "Anak-anak sedang bermain di kebun dan mereka berlari ke rumah karena hujan yang turun.",
    "ru": "Дети играли в саду, когда начался дождь, и они побежали в дом.",
    "uk": "Діти грали в саду, коли почався дощ, і вони побігли до хати, що була поруч.",
    "bg": "Децата играеха в градината, когато започна да вали, и те се прибраха в къщата.",
    "ar": "كان الأطفال يلعبون في الحديقة عندما بدأ المطر، ثم ركضوا إلى البيت الذي كان قريبا من هنا.",
    "fa": "بچه‌ها در باغ بازی می‌کردند که باران شروع شد و آن‌ها به خانه رفتند و این خوب بود.",
    "ur": "بچے باغ میں کھیل رہے تھے کہ بارش شروع ہو گئی اور وہ گھر کے اندر چلے گئے۔",
    "zh": "孩子们正在花园里玩，突然下起了雨，他们就跑进了屋里。",
    "ja": "子供たちが庭で遊んでいると、雨が降り出したので、家の中に走って入りました。",
    "ko": "아이들이 정원에서 놀고 있을 때 비가 내리기 시작해서 집 안으로 뛰어 들어갔다.",
    "el": "Τα παιδιά έπαιζαν στον κήπο όταν άρχισε να βρέχει και έτρεξαν στο σπίτι.",
    "he": "הילדים שיחקו בגינה כשהתחיל לרדת גשם והם רצו הביתה.",
    "th": "เด็กๆ กำลังเล่นอยู่ในสวนเมื่อฝนเริ่มตก",
    "hi": "बच्चे बगीचे में खेल रहे थे जब बारिश शुरू हुई और वे घर की ओर भागे।",
}


def test_a_sentence_tells_its_language():
    guesses = languages_of(units_of(list(SENTENCES.values())))
    assert [guess.language for guess in guesses] == list(SENTENCES)
    assert all(0.3 < guess.share <= 1 for guess in guesses)
    assert guesses[list(SENTENCES).index("ja")].share == 1  # ideographs and all


def test_a_text_of_two_languages_is_that_of_its_larger_part():
    mixed = [SENTENCES["zh"] * 3 + "OK", SENTENCES["en"] * 3 + "你好", SENTENCES["zh"] + " iPhone 15 Pro Max"]
    assert [guess.language for guess in languages_of(units_of(mixed))] == ["zh", "en", "zh"]


@pytest.mark.parametrize("text", ["", "12345 67890", "!!!", "Xyzzy Plugh"])
def test_nothing_is_known_of_a_text_without_words(text):
    assert languages_of(units_of([text])) == [Guess("", 0.0)]


def test_no_word_is_listed_twice():
    for code, words in WORDS.items():
        assert len(set(words.split())) == len(words.split()), code
    assert len(set(LANGUAGES)) == len(LANGUAGES)
