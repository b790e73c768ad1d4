"""Reads `rules.toml`: compiles its phrases, and looks up its words, codes and numbers."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from d22kit.masking import mask

__all__ = [
    "Category",
    "Phrase",
    "categories",
    "enhanced",
    "matched",
    "normal",
    "number",
    "phrases",
    "plain",
    "rules",
    "squeezed",
    "word_table",
]

OPENING = (
    r"(?:an error occurred while trying to deliver|delivery has failed|can ?not be delivered)[^.:]{0,40}"
    r" to (?:the following|these|all)[^.:]{0,20} (?:recipient|address)[a-z]*(?: or groups)?"
)
"""How delivery reports open; it names recipients and says nothing of them."""

TIDY = (
    (r"remote mail(?:er)? server|x-spam-&-virus-firewall|\(in reply to [^)]{0,60}\)", " "),
    (
        r"\b503[ -](?:5\.\d\.\d )?need rcpt(?: \(recipient\))?",
        " ",
    ),  # what Sendmail says once all were refused
    (OPENING, " "),
    (r"\be[- ]mail", "email"),
    (r"\bip[- ]address(?:es)?\b|\baddress(?:es)?[ :=]*[\[(]?\d+(?:\.\d+){3}\b", "ip"),
    (r"\bunknown (error|reason|problem|failure|cause|response|status)\b", " ${1}"),
    (r"[\"'`´’‘“”«»\x{200b}-\x{200f}\x{ad}\x{feff}]", ""),
    (r"[^\s<>()\[\],;:]*@[^\s<>()\[\],;:]*", " @ "),
    (r"\d+(?:\.\d+){3,}", " "),
    (r"\b[245]\.\d{1,3}\.\d{1,3}\b", " "),
    (r"\b[245]\d\d\b", " "),
    (r"\.([^\s.])", " ${1}"),
    (r"[;!?。！？；]", "."),
    (r"[^\p{L}\p{N}\p{M}@.]+", " "),
    (r"[ .]*\.[ .]*", " . "),
)
"""What brings a text to the form that phrases are written in."""

OPERATOR = re.compile(r"( \.\. |\.\.|[()|*]|(?<![^ (|)])_(?![^ )|]))")
READY = {
    " .. ": " (?:[^ .]+ ){0,6}",
    "..": "[^ .]+(?: [^ .]+){0,5}",
    "_": "[^ .]+(?: [^ .]+){0,2}",
    "*": "[^ .]*",
    "(": "(?:",
    ")": ")",
    "|": "|",
}
ACCENTS = "[\u0300-\u036f\u064b-\u0652]"
"""What is left of é, ü or й once letter and accent are parted, and the vowel signs of Arabic."""

JOINED = re.compile("[\u0590-\u06ff\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]")
"""Scripts whose words are not parted by blanks, or carry prefixes: there a phrase may begin inside a word."""


@dataclass(frozen=True, slots=True)
class Category:
    """What `rules.toml` says of one cause."""

    permanence: str
    meaning: str
    action: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """One rule of phrases, compiled.

    Parameters
    ----------
    category, permanence, state
        What it says where it fits; `permanence` and `state` are None where the rule leaves them open.
    pattern
        A regular expression over texts in the form of `normal`.
    says
        The phrases, with their sets of words written out.
    digit, codes, kinds
        What limits it: the class digit, enhanced codes, kinds of platform; empty for no limit.
    """

    category: str
    permanence: str | None
    state: str | None
    pattern: str
    says: tuple[str, ...]
    digit: str
    codes: tuple[str, ...]
    kinds: tuple[str, ...]


@cache
def rules() -> dict[str, Any]:
    """Return the rules as the file has them."""
    return tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))


@cache
def categories() -> dict[str, Category]:
    """Return the causes in the order of the file."""
    return {name: Category(**fields) for name, fields in rules()["categories"].items()}


@cache
def phrases(section: str) -> tuple[Phrase, ...]:
    """Return the compiled rules of `"phrase"` or `"weak"`, in order."""
    return tuple(_phrase(rule) for rule in rules()[section])


def _phrase(rule: dict[str, Any]) -> Phrase:
    says = [re.sub(r"\{(\w+)\}", _set_of_words, phrase.strip()) for phrase in rule["says"]]
    return Phrase(
        category=rule["category"],
        permanence=rule.get("permanence"),
        state=rule.get("state"),
        pattern=_pattern(says),
        says=tuple(says),
        digit=rule.get("class", ""),
        codes=tuple(rule.get("codes", "").split()),
        kinds=tuple(rule.get("kinds", ())),
    )


def _set_of_words(named: re.Match[str]) -> str:
    return f"({'|'.join(rules()['words'][named[1]])})"


def _plainly(phrase: str) -> str:
    """Spell a phrase as `normal` spells texts: without accents."""
    parted = unicodedata.normalize("NFKD", phrase.replace("ı", "i"))
    return unicodedata.normalize("NFC", re.sub(ACCENTS, "", parted))


def _pattern(says: list[str]) -> str:
    says = [_plainly(phrase) for phrase in says]
    joined = [phrase for phrase in says if JOINED.search(phrase)]
    words = "|".join(_compiled(phrase) for phrase in says if phrase not in joined)
    return "|".join([f" (?:{words}) "] * bool(words) + [_compiled(phrase) for phrase in joined])


def _compiled(phrase: str) -> str:
    """Compile one phrase.

    Examples
    --------
    >>> _compiled("user (is |)block*")
    'user (?:is |)block[^ .]*'
    """
    return "".join(READY.get(part) or re.escape(part).replace(r"\ ", " ") for part in OPERATOR.split(phrase))


def squeezed(text: pl.Expr) -> pl.Expr:
    """Join the lines of texts, also those whose ends JSON has written out."""
    return text.str.replace_all(r"(?:\s|\\[rnt])+", " ")


def normal(text: pl.Expr) -> pl.Expr:
    """Bring texts to the form in which phrases are written: lower case, no accents, blanks around."""
    text = text.str.to_lowercase().str.replace_many(["ß", "ı"], ["ss", "i"])
    text = text.str.normalize("NFKD").str.replace_all(ACCENTS, "").str.normalize("NFC")
    for pattern, replacement in TIDY:
        text = text.str.replace_all(pattern, replacement)
    return " " + text.str.strip_chars(" .") + " "


def plain(word: pl.Expr) -> pl.Expr:
    """Bring a status word to its form in the rules: lower case, letters and digits only."""
    return word.str.to_lowercase().str.replace_all(r"[\s_./-]+", "")


@cache
def word_table(section: str) -> dict[str, str]:
    """Return word -> name for a section of names with lists of words."""
    return {word: name for name, words in rules()[section].items() for word in words.split()}


@cache
def enhanced(code: str) -> dict[str, Any] | None:
    """Return the rule for an enhanced status code such as `5.1.1`: an exact one before a glob."""
    known = [(entry, pattern) for entry in rules()["enhanced"] for pattern in entry["codes"].split()]
    return _best(code, known) or _best("x" + code[1:], known)


@cache
def number(code: str, kind: str) -> dict[str, Any] | None:
    """Return the rule for a provider's number or name on a kind of platform."""
    known = [(e, pattern) for e in rules()["number"] if kind in e["kinds"] for pattern in e["codes"].split()]
    return _best(code.upper(), known)


def _best(code: str, known: list[tuple[dict[str, Any], str]]) -> dict[str, Any] | None:
    exact = [entry for entry, pattern in known if pattern == code]
    return next(iter(exact or [entry for entry, pattern in known if fnmatchcase(code, pattern)]), None)


def matched(case: pl.DataFrame, section: str, index: int) -> str:
    """Return the words of a case that a rule of phrases fitted; words that the rule does not name become `…`."""
    code, detail = (pl.col(name).fill_null("") for name in ("delivery_code", "delivery_error_detail"))
    text = normal(squeezed(detail) + " . " + code)
    rule = phrases(section)[index]
    fitted = case.select(text.str.extract(f"({rule.pattern})")).item() or ""
    named = set(re.findall(r"[^\s()|.]+", _plainly(" ".join(rule.says))))
    stems = tuple(word[:-1] for word in named if word.endswith("*") and len(word) > 2)
    words = [word for word in fitted.split() if word in named or word.startswith(stems)]
    safe = {word for word in words if word in named or mask(word) == word}
    said = " ".join(word if word in safe else "…" for word in fitted.split())
    return re.sub(r"…(?: …)+", "…", said)
