"""The letter that a response chooses, among letters that are something else."""

import re

# Lower-case letters count in brackets, at the start of a line and behind "option" only: "9 a.m." has none.
_LETTER = re.compile(
    r"\(([A-Ja-j])\)"
    r"|(?:^|\n)[^\S\n]*[*_]*([A-Ja-j])[*_]*[).:](?=\s|$|[*_])"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|OPTION|CHOICE|ANSWER)\s+[*_]*([A-Ja-j])\b(?!['’.]\w)"
    r"|(?<![\w'’°.&/-])(?<!\d )([A-J])(?![.&/]\w)"
    r"(?=[*_`$}]*\s*(?:[).:,;!?]|$)|\s+(?:because|since|rather|instead|as|is\s+(?:the\s+)?(?:correct|right|best))\b"
    r"|(?<!A)\s+\()"
)
# Before a letter that is ruled out, or stands for a name.
_RULED_OUT = re.compile(
    r"(?:\bnot|n't(?:\s+be)?|\brather\s+than|\binstead\s+of|\bneither|\bnor|\bthan|\bunlike)\s+"
    r"(?:option\s+|choice\s+|answer\s+)?[*_(\s]*$",
    re.IGNORECASE,
)
_OF_A_NAME = re.compile(
    r"(?:\b(?!(?:Option|Choice|Answer|So|Thus|Hence|Therefore|Is|Choose|Pick|Select|Clearly|Then)\b)[A-Z][a-z]+"
    r"|\b[A-Z]\.|\b(?:[Vv]itamins?|[Hh]epatitis|by|[Pp]lan|[Gg]rade|[Tt]eam|[Pp]oint|[Mm]r|[Mm]s|[Dd]r))\s+$"
)
_SURNAME = re.compile(r"\.\s+[A-Z][a-z]")


def last_letter(text: str) -> str | None:
    """The last letter that a worked answer chooses, as a capital."""
    found = _letters(text)
    return found[-1] if found else None


def first_letter(text: str) -> str | None:
    """The first letter that a stated answer chooses, as a capital."""
    found = _letters(text)
    return found[0] if found else None


def _letters(text: str) -> list[str]:
    found = []
    for match in _LETTER.finditer(text):
        letter = match[match.lastindex or 0]
        before = text[max(0, match.start() - 40) : match.start()]
        bare = match.lastindex == 4
        is_name = (
            bare and _OF_A_NAME.search(before) and (_SURNAME.match(text, match.end()) or before[-1:] != ".")
        )
        is_pronoun = bare and letter == "I" and text[match.end() : match.end() + 1] == ","
        if not (_RULED_OUT.search(before) or is_name or is_pronoun):
            found.append(letter.upper())
    return found
