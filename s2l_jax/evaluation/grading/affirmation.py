"""Whether a response says yes or no: "no reason" says neither, nor "yes and no", and "not true" says no."""

import re
from collections.abc import Iterator

_YES, _NO = "yes|yeah|yep|yup", "no|nope|nah"
_TRUE, _FALSE = "true", "false|untrue"
MEANS = dict.fromkeys(f"{_YES}|{_TRUE}".split("|"), "yes") | dict.fromkeys(f"{_NO}|{_FALSE}".split("|"), "no")

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{\s*([^{}]*?)\s*\}|[*_`$\"“”{}]")
# Named together: a question, or an answer that is neither. But "yes and no more than that" says yes.
_TOGETHER = re.compile(
    "|".join(
        rf"\b(?:{one})(?:\s*(?:\bor\b|\bnor\b|[/&])\s*(?:{other})\b|,?\s+and\s+(?:{other})\b(?!\s+\w))"
        for yes, no in ((_YES, _NO), (_TRUE, _FALSE))
        for one, other in ((yes, no), (no, yes))
    ),
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?\n](?!\w))?|[.!?\n]")

_END = r"\s*(?:[,;:!.)\]]|[–—-](?!\w)|$)"
_ASIDE = r"\s+\((?:it|he|she|they|we|you|i|this|that|these|those|there|because|since|as|see|not)\b"
_SUBJECT = r"\s+(?:it|he|she|they|we|you|i|this|that|these|those|there|because|since|as|the|not)\b"
# Said for itself: "Yes", "No, it is not", "No it is not", "so no".
_SAID = re.compile(
    rf"(?:^[\W\d]*(?:(?:so|thus|hence|therefore|then|well|actually|wait)\b,?\s+)*(?:({_YES})\b|({_NO}|{_TRUE}|{_FALSE})(?={_END}|{_ASIDE}|{_SUBJECT}))"
    rf"|(?:[,:;–—]\s*|\s-\s+|\b(?:is|say|so|but)\s+)({_YES}|{_NO})(?={_END}))",
    re.IGNORECASE,
)
# Said of something: "it is true", "the claim is false"; but not "the true value".
_PREDICATE = re.compile(
    rf"\b({_TRUE}|{_FALSE})\b(?!\s+(?!(?:that|for|because|since|as|by|in|of|when|here|and|so|too)\b)[a-z])",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|cannot|neither|hardly|no\s+way)\b|n['’]t\b)(?:\s+[\w'’]+){0,5}\s*$", re.IGNORECASE
)
_SUPPOSED = re.compile(
    r"\b(?:would|could|might|may|if|were|whether|suppose|only|unless|assum\w+)\b", re.IGNORECASE
)
_CONCLUDED = re.compile(r"\b(?:so|thus|hence|therefore|conclu\w+|consequently)\b", re.IGNORECASE)


def first_affirmation(text: str) -> str | None:
    """What a stated answer says first: "yes" or "no"; true and false count as such."""
    return next((word for _, word in _affirmations(text)), None)


def last_affirmation(text: str) -> str | None:
    """What a worked answer says last: for itself or as a conclusion, or else of something."""
    found = list(_affirmations(text))
    surest = max((sure for sure, _ in found), default=0)
    return next((word for sure, word in reversed(found) if sure == surest), None)


def _affirmations(text: str) -> Iterator[tuple[int, str]]:
    """The words in their order, each with how sure it is to be the answer."""
    answers_one = False  # the sentence before was a question
    for match in _SENTENCE.finditer(_TOGETHER.sub(" ", _MARKUP.sub(r"\1", text))):
        sentence = match.group().strip()
        if sentence.endswith("?"):
            answers_one = True
        elif sentence:
            yield from _of_sentence(sentence, 1 if answers_one else 2)
            answers_one = False


def _of_sentence(sentence: str, sure: int) -> Iterator[tuple[int, str]]:
    said = [MEANS[word.lower()] for groups in _SAID.findall(sentence) for word in groups if word]
    yield from ((sure, word) for word in said)
    if said or _SUPPOSED.search(sentence):
        return
    for found in _PREDICATE.finditer(sentence):
        word = MEANS[found[1].lower()]
        if _NEGATED.search(sentence[: found.start()]):
            word = "no" if word == "yes" else "yes"
        yield (2 if _CONCLUDED.search(sentence) else 0), word
