"""Numbers in prose made plain: separators, scales, and operations that are said in words."""

import re
from collections.abc import Callable

from s2l_jax.evaluation.grading.characters import plain

_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_LEFT = r"(?i)(?<=[\d)}])\s+"  # behind one operand
_RIGHT = r"\s+(?=[\d$£€(\\])"  # before the other
# A unit, how many of another make one, and that: 5 feet 6 inches is 5 6/12 feet.
_UNITS = (
    ("hours?|hrs?|h", 60, "minutes?|mins?|m"),
    ("minutes?|mins?", 60, "seconds?|secs?|s"),
    ("days?", 24, "hours?|hrs?"),
    ("weeks?", 7, "days?"),
    ("years?", 12, "months?"),
    ("feet|foot|ft", 12, "inch(?:es)?|in"),
    ("pounds?|lbs?", 16, "ounces?|oz"),
    ("dollars?", 100, "cents?"),
    ("met(?:er|re)s?|m", 100, "centimet(?:er|re)s?|cm"),
    ("kilomet(?:er|re)s?|km", 1000, "met(?:er|re)s?|m"),
    ("kilograms?|kg", 1000, "grams?|g"),
)

_By = str | Callable[[re.Match[str]], str]
_RULES: list[tuple[str, _By]] = [
    # What is no part of a number, or hides one.
    (r"<<[^<>]{0,300}>>|</?[A-Za-z]{1,9}/?>", ""),  # a calculator's notes in GSM8K; tags
    (r"[-=]+>|→|⇒|⟹|\\(?:[Rr]|[Ll]ongr)ightarrow(?![A-Za-z])|\\implies(?![A-Za-z])", " ; "),
    (r"\^\s*\{?\s*(?:\\circ|\\text\{\s*(?:st|nd|rd|th|o)\s*\}|(?:st|nd|rd|th)\b)\s*\}?", ""),
    (
        r"\\(?:text|textbf|textrm|mathbf|boldsymbol|mathrm|mbox)\s*\{([^{}]{0,300})\}",
        lambda found: f" {found[1].strip()} ",
    ),
    (r"(?<![\w)}*])\*{2,3}([^\s*][^*\n]{0,300})(?<!\s)\*{2,3}", r"\1"),
    (r"(\\[A-Za-z]+)(?=\d)", r"\1 "),
    # Separators of thousands and decimals.
    (r"(?<![\w.,])\d{1,3}(?: \d{3})+(?![\w.,]*\d)", lambda found: found.group().replace(" ", "")),
    (r"(?<![\w.,])\d{1,3}(?:['’_]\d{3})+(?!\w)", lambda found: re.sub(r"\D", "", found.group())),
    (r"(?<![\w.,])\d{1,3}(?:\.\d{3}){2,}(?![\w.]*\d)", lambda found: found.group().replace(".", "")),
    (r"(?<![\w.,])\d{1,2}(?:,\d{2})+,\d{3}(?![\w,]*\d)", lambda found: found.group().replace(",", "")),
    (r"(?<![\w.,])(\d+),(\d{1,2})(?![\w,.]*\d)(?!\s*,)", r"\1.\2"),
    # Two units.
    (r"(?<![\w.,])(\$\d+)\s+and\s+(\d+)\s+cents?\b", r"\1 \2/100 dollars"),
    *(
        (rf"(?<![\w.,])(\d+)\s*(?:{unit})\b,?(?:\s*and)?\s*(\d+)\s*(?:{part})\b", rf"\1 \2/{parts} ")
        for unit, parts, part in _UNITS
    ),
    # Scales.
    (r"(?<=\d)\s?[kK]\b(?!\s*[-+*/^=])", " thousand"),
    (r"(?<=\d)M\b(?!&)|(?<=\d)\s?(?:mn|mil|mio)\b|([$£€]\d+(?:\.\d+)?)m\b", r"\1 million"),
    (r"(?<=\d)\s?(?:bn|B)\b", " billion"),
    # Operations.
    (rf"{_LEFT}(?:multiplied\s+by|times){_RIGHT}", " * "),
    (rf"{_LEFT}plus{_RIGHT}", " + "),
    (rf"{_LEFT}minus{_RIGHT}", " - "),
    (rf"{_LEFT}(?:divided\s+by|over){_RIGHT}", " / "),
    (r"(?i)\b(?:negative|minus)\s+(?=[\d$.\\])", "-"),
    (rf"{_LEFT}squared\b", "^2"),
    (rf"{_LEFT}cubed\b", "^3"),
    (rf"{_LEFT}(?:raised\s+)?to\s+the\s+power\s+(?:of\s+)?(-?\d+)", r"^{\1}"),
    (rf"{_LEFT}(?:raised\s+)?to\s+the\s+(\d+)(?:st|nd|rd|th)(?:\s+power)?", r"^{\1}"),
    (rf"{_LEFT}factorial\b", "! "),
    (rf"(?i)\b(?:the\s+)?square\s+root\s+of\s+({_NUMBER})", r"\\sqrt{\1}"),
    (rf"(?i)\b(?:the\s+)?cube\s+root\s+of\s+({_NUMBER})", r"\\sqrt[3]{\1}"),
    (r"(?i)\b(\d+)\s+choose\s+(\d+)", r"\\binom{\1}{\2}"),
    (rf"(?i)\bhalf\s+of{_RIGHT}", "1/2 * "),
    (rf"(?i)\b(?:twice|double){_RIGHT}", "2 * "),
    (rf"(?i)\b(?:thrice|triple){_RIGHT}", "3 * "),
    (rf"(?<![\w.,])({_NUMBER})\s?(?:\\?%|percent)\s+of\s+(?=\$?\d)", r"\1/100 * "),
    (r"(?<![\w.,])(\d+/\d+)\s+of\s+(?=\$?\d)", r"\1 * "),
    (rf"{_LEFT}and\s+(?:a|one)\s+half\b", " 1/2"),
    (rf"{_LEFT}and\s+(?:a|one)\s+third\b", " 1/3"),
    (rf"{_LEFT}and\s+(?:a|one)\s+(?:quarter|fourth)\b", " 1/4"),
    (rf"{_LEFT}and\s+three\s+(?:quarters|fourths)\b", " 3/4"),
    # Units of what is added, multiplied or divided.
    (r"(?<=\d)\s+(?!times\b)[A-Za-z]{2,20}(?=\s*[+*×·/]\s*[\d$])", ""),
]
_SUBSTITUTIONS = [(re.compile(pattern), by) for pattern, by in _RULES]


def plain_wording(text: str) -> str:
    """A text with `10 thousand` for 10k, `1000000` for 1 000 000, `4^2` for 4 squared."""
    text = plain(text)
    for pattern, by in _SUBSTITUTIONS:
        text = pattern.sub(by, text)
    return text
