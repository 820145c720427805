"""Names by the words around them: Chinese ones by a surname behind a word such as 姓名, English ones behind a title.

Nothing separates words in Chinese. So where a name ends is told by what follows, or guessed: most names have three characters.
"""

import re
import unicodedata
from collections.abc import Iterator

TITLES = tuple("先生 女士 小姐 同学 老师 医生 大夫 教授 经理".split())
FORMS = tuple("姓名 名字 联系人 收件人".split())
"""Words that a name follows, whatever comes then."""
ROLES = tuple("患者 客户".split())
"""Words that a name follows, or anything else: it is believed only where its end can be told."""
SURNAMES = (
    "欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|令狐|慕容|司徒|夏侯|端木|[王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖"
    "田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤]"
)
"""The commonest Chinese surnames, which nine in ten people have."""
_BEHIND = "|".join(
    (
        *TITLES,
        *"电话 手机 座机 号码 微信 邮箱 邮件 地址 住址 现住 家住 性别 年龄 出生 生日 身份证 证件 户籍 籍贯 民族 职业 单位 公司".split(),
        *"入院 出院 住院 来院 就诊 就医 来诊 门诊 复诊 确诊 诊断 主诉 自述 已经 以及 或者 表示 认为 您好 你好 谢谢".split(),
    )
)
"""Words that come behind a name and begin none."""
_JOINED = "[的了和与及或跟住在是因被系收吗呢吧啊、]"
"""Characters that come behind a name, though some names have one of them."""
_WORDS = (
    "高(?:血|热|烧|龄|危|度|级|中|等|达|管)|方(?:面|式|便|向|案|法|可|才)|于(?:[昨今前当本同此去上下术入晚早]|是)|向(?:[医护我本其家他她院]|来)"
    "|曾(?:[于在因患有行做被多]|经)|任(?:何|务|意|职)|金(?:额|融|属)|余(?:额|下|款)|程(?:序|度)|马上|万(?:一|元|人)|武汉|江(?:苏|西)|夏(?:天|季)"
    "|白(?:天|细|血|色)|周(?:末|围|边|期)|段时|付(?:款|费|出)|许(?:多|可)|陈(?:述|旧)|黄(?:色|疸|金)|何(?:时|种|处|人)|沈阳|陆续"
    "|范围|钱款|严重|莫名|顾客|苏(?:醒|州)|郑州|毛病|谢谢|韩国|唐山|史上|汤药|龙头|石家"
    f"|周[一二三四五六日](?:{_BEHIND}|{_JOINED})"
)
"""Common words that begin as names do."""
_END = r"(?![一-鿿]|\[[A-Z])"
"""Neither a Chinese character nor a surrogate: what stood there may have been one."""
_PLAIN = f"(?:(?!{_BEHIND})[一-鿿])"
_NAME = (
    f"(?!{_WORDS})(?:{SURNAMES})(?:"
    f"{_PLAIN}{{1,2}}(?<![的了吗呢吧啊])(?:{_END}|(?={_BEHIND}|的))"  # told by what follows: any characters
    f"|(?:(?!{_JOINED}){_PLAIN}){{1,2}}"
    f"|{_PLAIN}{{1,2}}(?<![的了吗呢吧啊]))"
)
_CERTAIN = f"(?!{_WORDS})(?:{SURNAMES})(?:(?!{_JOINED}){_PLAIN}){{1,2}}(?:{_END}|(?={_BEHIND}|[的和与及住在因、]))"
_NAMES = {word: re.compile(_NAME) for word in FORMS} | {word: re.compile(_CERTAIN) for word in ROLES}
_AND = re.compile("和|与|及|以及|、")

CALLED = re.compile(rf"({'|'.join(FORMS + ROLES)})(?:是|为|叫)?[：: ]{{0,2}}")


def called(found: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Where the names stand that follow a word of CALLED: one, or several that are joined."""
    name, at = _NAMES[found[1]], found.end()
    while one := name.match(found.string, at):
        yield one.span()
        if not (joined := _AND.match(found.string, one.end())):
            return
        at = joined.end()


ADDRESSED = re.compile(rf"((?!{_WORDS})(?:{SURNAMES})(?:(?![的是和了在有这那个们不为与及就也都])[一-鿿]){{0,2}}?)(?:{'|'.join(TITLES)})")
"""A name before a Chinese title."""

_MARKS = "".join(chr(code) for code in range(0x300, 0x2000) if unicodedata.category(chr(code)).startswith("M"))
"""Accents and vowel signs, which are no letters for `\\w`."""
_LETTER = rf"[^\W\d_一-鿿][{_MARKS}]{{0,4}}"
_WORD = rf"{_LETTER}(?:['’-]?{_LETTER}){{1,30}}"

TITLED = re.compile(rf"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? ({_WORD}(?: {_WORD}){{0,2}})")


def titled(found: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Where the name stands that follows a title: the words that do not begin with a small letter."""
    end = found.start(1)
    for word in re.finditer("[^ ]+", found[1]):
        if word[0][0].islower():
            break
        end = found.start(1) + word.end()
    if end > found.start(1):
        yield found.start(1), end
