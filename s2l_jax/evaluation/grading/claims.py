"""What a text claims, without what stands around it: bullets, dashes, asides, reasons, checks."""

import re

from s2l_jax.evaluation.grading.characters import FUNCTIONS

# A reason or a check comes behind one of these; "as a fraction" is none.
_REASON = re.compile(
    r"\b(?:because|since|as(?!\s+(?:an?|the|in)\b)|from|given|using|where|when|if|assuming|provided|unless|after|under|out\s+of|though|although|while|whereas"
    r"|but|not|rather|instead|due|via|so|hence|thus|therefore|which|check|verif\w+|proof|recall|note|namely)\b"
    r"|\b(?:i\.\s?e|e\.\s?g)\.|\b(?:for|by|with)(?=[^=\n]{1,80}=)",
    re.IGNORECASE,
)
_BECAUSE = re.compile(
    r"[,;]?\s{1,9}(?:because|since)\b(?!.{0,300}\b(?:so|thus|hence|therefore|then|which|leaving)\b).*",
    re.IGNORECASE | re.DOTALL,
)
_NOT_THIS_BUT = re.compile(r"\bnot\b[^.;\n]{1,60}?\bbut\b", re.IGNORECASE)
_CHECK = re.compile(
    r"(?:^|(?<=[.!?;\n]))[^\S\n]*[*_]{0,2}(?:check|checking|verification|verifying|proof|note"
    r"|(?:to|let's|let us|we(?: can)?)\s+(?:check|verify))\b[^\n]{0,500}",
    re.IGNORECASE,
)
_ASIDE = re.compile(  # words or an equation in brackets
    rf"(?<=[\w.%$}})!])\s+[(\[](?=[^()\[\]\n]{{0,300}}(?:(?<![\\A-Za-z])(?!(?:{FUNCTIONS})(?:\b|_))[A-Za-z]{{3,}}|=))"
    r"[^()\[\]\n]{1,300}[)\]](?!\s*[-+*/^=])"
)
_BULLET = re.compile(
    r"^[^\S\n]*(?:(?:[-*•·+>–—‣▪◦]|\(\d{1,2}\)|\d{1,2}[.)])[^\S\n]+(?=\S)"
    r"|(?:Step|Day|Part|Case|Question|Problem|Example|Week|Month|Year|Round|Line|Q)[^\S\n]\d+"
    r"[^\S\n]*[-:.–—][^\S\n]+)",
    re.MULTILINE,
)
_DASH = re.compile(
    r"(?<=[^\W\d_][^\W\d_])([.:,;)\"'*]{0,3})[^\S\n]+[-–][^\S\n]+(?=\S)|[^\S\n]{0,9}—[^\S\n]{0,9}|[^\S\n]{1,9}--[^\S\n]{1,9}"
)
_SUM = re.compile(r"\d[^=\n]{0,200}\s[-–]\s[^=\n]{0,200}=")  # 20 apples - 2 apples = 18 apples


def without_bullets(text: str) -> str:
    """Lines without their bullets, numbers and labels."""
    return _BULLET.sub("", text)


def without_dashes(text: str) -> str:
    """With a semicolon for each dash that is punctuation: behind a word, with spaces around it."""
    return "\n".join(line if _SUM.search(line) else _DASH.sub(r"\1 ; ", line) for line in text.split("\n"))


def without_asides(text: str) -> str:
    """Without brackets that hold words or an equation."""
    return _ASIDE.sub(" ", text)


def without_checks(text: str) -> str:
    """Without what begins with "Check:" or the like, up to the end of its line."""
    return _CHECK.sub("", text)


def without_reasons(text: str) -> str:
    """A sentence of a worked answer without the "because" that it ends with."""
    return _BECAUSE.sub("", text, count=1)


def claimed(text: str) -> str:
    """A stated answer up to the first reason or check, if anything comes before that."""
    text = _NOT_THIS_BUT.sub("", text)
    for found in _REASON.finditer(text):
        if re.search(r"\w", text[: found.start()]):
            return text[: found.start()].rstrip(" \t\n,;:([{–—-")
    return text
