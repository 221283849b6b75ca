"""The letter that a response chooses, among letters that are something else."""

import re

LETTERS = "ABCDEFGHIJ"  # those that the patterns know

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
    r"|\b[A-Z]\.|\b(?:[Vv]itamins?|[Hh]epatitis|by|[Aa]ccording\s+to|[Pp]lan|[Gg]rade|[Tt]eam|[Pp]oint|[Mm]r|[Mm]s|[Dd]r))\s+$"
)
_SURNAME = re.compile(r"\.?\s+[A-Z][a-z]")
# J. Smith said, J. R. Smith wrote; but "A. Newton discovered it" may be an option.
_INITIALS = re.compile(r"\.?(?:[^\S\n]+[A-Z]\.)*")
_SAYS = re.compile(r"\.?\s+[A-Z][\w'’-]+\s+(?:said|says|told|asked|wrote|writes)\b")
_SEVERAL = re.compile(  # "A and B" chooses none; the I of "A and I" is a pronoun
    r"(?<![\w'’.])\(?[A-J]\)?\s*(?:\band\b|\bor\b|\bnor\b|[/&])\s*\(?[A-HJ]\b\)?+(?!['’.]\w|\s+is\b)"
)


def last_letter(text: str) -> str | None:
    """The last letter that a worked answer chooses, as a capital."""
    found = _letters(text)
    return found[-1] if found else None


def first_letter(text: str) -> str | None:
    """The first letter that a stated answer chooses, as a capital."""
    found = _letters(text)
    return found[0] if found else None


def _letters(text: str) -> list[str]:
    text = _SEVERAL.sub(" ", text)
    found, ruled_out = [], 0  # where the last letter that is ruled out ends
    for match in _LETTER.finditer(text):
        letter = match[match.lastindex or 0]
        before = text[max(ruled_out, match.start() - 40) : match.start()]
        if _RULED_OUT.search(before):
            ruled_out = match.end()
        elif not _is_of_a_name(match, letter, before):
            found.append(letter.upper())
    return found


def _is_of_a_name(match: re.Match[str], letter: str, before: str) -> bool:
    """Whether a letter is an initial, or belongs to the word before; or is the pronoun."""
    text, end = match.string, match.end(match.lastindex or 0)
    if match.lastindex == 2:  # at the start of a line
        initials = _INITIALS.match(text, end)
        return _SAYS.match(text, initials.end() if initials else end) is not None
    if match.lastindex != 4:
        return False
    if _SAYS.match(text, end):
        return True
    if letter == "I" and text[end : end + 1] == ",":
        return True
    return bool(
        _OF_A_NAME.search(before) and (_SURNAME.match(text, end) or not before.rstrip().endswith("."))
    )
