"""What a scan's header says of the patient, and whether a name given to the scan resembles it.

Folders and files are often called after the patient. What is written for a scan must not be, so names are compared with
the header: name parts, patient and accession numbers, birth and study dates. The header's words stay in memory.
"""

from __future__ import annotations

import difflib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_COMMON = """
    ab abdomen acq acquisition al am an and anon anonym anonymised anonymized anonymous anonymus ax axial base
    bin body bone case cases chest contrast converted copy corona coronal covid created ct cta da dal das data
    dataset dcm de default degli del della demo den der des di dicom do dos dr du dummy el ep ex example export
    extra fe female file files folder fr frau freesurfer fsl fslmaths gated he head herr hr hrct ibn id ii iii
    im image images img in itk iv jr kernel kopie kv la las le left les lobe lobes low ls lu lung lunge lungs ma
    mac male mask mc mean med median mha mm mr mrs ms mt nan native neck new nibabel nifti nii nm no noname none
    normal nr nrrd null of old original os output part pat patient patients pelvis ph phantom phd pid pneumonia
    prior prof pt recon resampled right sagittal sample san sc scan scans se seg segmentation ser serie series
    sharp simpleitk slice slices soft sr ss st standard std studie study su sub subject synthetic temp test the
    thick thin thorax tmp tom torso trial unbekannt undefined unknown unnamed up ur us user value van version
    view vol volume vom von whole with without yes zu zum zur
"""
GENERIC = frozenset(_COMMON.split())
"""Words that say nothing of a person: a patient called so is not known by it."""

_MONTHS = (
    ("jan", "janv", "ene"), ("feb", "fev"), ("mar", "mrz", "maerz", "marz"), ("apr", "avr", "abr"),
    ("may", "mai", "mayo"), ("jun", "juin"), ("jul", "juil"), ("aug", "aou", "ago"), ("sep", "sept"),
    ("oct", "okt"), ("nov",), ("dec", "dez", "dic"),
)  # fmt: skip
_FULL_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "januar", "februar", "juni", "juli", "oktober", "dezember",
)  # fmt: skip
_MONTH_OF = {name: number for number, names in enumerate(_MONTHS, 1) for name in names}
_MONTH_OF |= {name: _MONTH_OF[name[:3]] for name in _FULL_MONTHS}
_TWO_LETTERS = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "ø": "oe",
        "å": "aa",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
        "ł": "l",
        "đ": "d",
    }
)
_ONE_LETTER = str.maketrans(
    {"ø": "o", "å": "a", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ł": "l", "đ": "d", "ı": "i"}
)
_LETTERS = re.compile(r"[^\W\d_]+")
_TOKENS = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z\u00df-\u00ff])(?=[A-Z\u00c0-\u00de])")


@dataclass(frozen=True)
class PatientWords:
    """What a header says of the patient, for comparison only: never shown, logged or written.

    Attributes:
        names: parts of the patient's names, lower case, each in the spellings it may have in a file's name.
        ids: patient, accession and admission numbers: letters and digits, lower case.
        births: dates of birth, ``YYYYMMDD``.
        studies: dates of the study, ``YYYYMMDD``.
    """

    names: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    births: frozenset[str] = frozenset()
    studies: frozenset[str] = frozenset()

    def __or__(self, other: PatientWords) -> PatientWords:
        return PatientWords(
            self.names | other.names,
            self.ids | other.ids,
            self.births | other.births,
            self.studies | other.studies,
        )

    def resemble(self, text: str) -> bool:
        """Whether a name, of a file or of a case, resembles what the header says of the patient.

        Case, accents (ü or ue), separators and their absence do not count; short or common words (``CT``, ``1``) do
        not make a resemblance.
        """
        return self._name_in(text) or any(_id_in(known, text) for known in self.ids) or self._date_in(text)

    def _name_in(self, text: str) -> bool:
        words = {word for spelling in spellings(_CAMEL.sub(" ", text)) for word in _LETTERS.findall(spelling)} | {
            word for spelling in spellings(text) for word in _LETTERS.findall(spelling)
        }
        runs = ["".join(_LETTERS.findall(spelling)) for spelling in spellings(text)]
        pairs = {a + b for a, b in itertools.permutations(sorted(self.names), 2)} if len(self.names) < 60 else set()
        if any(_weight(pair) >= 5 and pair in run for pair in pairs for run in runs):
            return True
        return any(
            part in words
            or (_weight(part) >= 5 and any(part in run for run in runs))
            or any(_alike(part, word) for word in words)
            for part in self.names
        )

    def _date_in(self, text: str) -> bool:
        runs = list(_digit_runs(text))
        births = {form for date in self.births for form in _forms(date)}
        studies = {form for date in self.studies for form in _forms(date) if len(form) == 8}
        known = births | studies
        return any(run in known or any(len(form) == 8 and form in run for form in known) for run in runs)


def patient_words(
    *,
    names: Iterable[str] = (),
    ids: Iterable[str] = (),
    births: Iterable[str] = (),
    studies: Iterable[str] = (),
    removed: bool = False,
) -> PatientWords:
    """The words of a header that can give a patient away.

    Args:
        names: as the header has them, e.g. ``MUSTERFRAU^ERIKA``.
        ids: patient and accession numbers.
        births: dates of birth in any common format.
        studies: dates of the study.
        removed: the header says that identities were removed: numbers and names with digits are pseudonyms then.
    """
    names, ids = list(names), list(ids)
    if removed:
        names = [name for name in names if not re.search(r"\d", name) and squashed(name) not in map(squashed, ids)]
        ids = []
    parts = {
        word
        for name in names
        for spelling in spellings(name)
        for word in _LETTERS.findall(spelling)
        if _weight(word) >= 2 and word not in GENERIC
    }
    numbered = [*ids, *(name for name in names if re.search(r"\d", name))]
    return PatientWords(
        frozenset(parts),
        frozenset(number for number in map(squashed, numbered) if number and number not in GENERIC),
        frozenset(date for text in births for date in _dates(text)),
        frozenset(date for text in studies for date in _dates(text)),
    )


def free_words(text: str) -> PatientWords:
    """Words of a free text that may be a name, a number or a date of birth: those of four letters and more."""
    words = [word for word in _LETTERS.findall(text) if _weight(word) >= 4]
    numbers = [number for number in re.findall(r"[A-Za-z]*\d[\w-]*", text) if len(squashed(number)) >= 6]
    dates = re.findall(r"(?<!\d)(?:19|20)\d{6}(?!\d)|\d{4}-\d\d-\d\d|\d{1,2}\.\d{1,2}\.\d{4}", text)
    found = patient_words(names=words, births=dates)
    return found | PatientWords(ids=frozenset(map(squashed, numbers)))


def spellings(text: str) -> set[str]:
    """Lower-case spellings of a text: accents dropped (ü to u) and written out (ü to ue)."""
    low = unicodedata.normalize("NFC", text).casefold()
    return {_plain(low.translate(_ONE_LETTER)), _plain(low.translate(_TWO_LETTERS))}


def squashed(text: str) -> str:
    """Letters and digits alone, lower case, without accents."""
    return "".join(char for char in _plain(text.casefold()) if char.isalnum())


def _plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


def _weight(word: str) -> int:
    """How much a word says: a Chinese, Japanese or Korean character as much as three letters."""
    return sum(3 if ord(char) >= 0x2E80 else 1 for char in word)


def _alike(part: str, word: str) -> bool:
    """Whether a word is the beginning of a name part, or that part misspelt."""
    if len(word) < 5 or word in GENERIC:
        return False
    if part.startswith(word):
        return True
    return min(len(part), len(word)) >= 6 and difflib.SequenceMatcher(None, part, word).ratio() >= 0.87


def _id_in(known: str, text: str) -> bool:
    run = squashed(text)
    if len(known) >= 3 and run == known:
        return True
    if len(known) < 4:
        return False
    if not any(char.isdigit() for char in known):
        return known in {squashed(word) for word in _LETTERS.findall(text)}
    if re.search(rf"(?<!\d){re.escape(known)}(?!\d)", run):
        return True
    numbers = {number.lstrip("0") for number in re.findall(r"\d+", text)}
    cores = {number.lstrip("0") for number in re.findall(r"\d+", known)}
    least = 4 if known.isdigit() else 5
    return any(len(core) >= least and core in numbers for core in cores)


def _dates(text: str) -> Iterator[str]:
    """Dates in a header's value, ``YYYYMMDD``; day before month where a year stands last."""
    groups = re.findall(r"\d+", text)
    if groups and len(groups[0]) >= 8:
        yield groups[0][:8]
    elif len(groups) >= 3 and len(groups[0]) == 4:
        yield groups[0] + groups[1].zfill(2) + groups[2].zfill(2)
    elif len(groups) >= 3 and len(groups[2]) == 4:
        yield groups[2] + groups[1].zfill(2) + groups[0].zfill(2)


def _forms(date: str) -> set[str]:
    """How a date ``YYYYMMDD`` is written without separators."""
    year, month, day = date[:4], date[4:6], date[6:]
    long = {year + month + day, day + month + year, month + day + year, year + day + month}
    short = {year[2:] + month + day, day + month + year[2:], month + day + year[2:]}
    return long | short


def _digit_runs(text: str) -> Iterator[str]:
    """Runs of digits, and three neighbouring groups as one run, a month's name as its number."""
    tokens = []
    for token in _TOKENS.findall(_plain(text.casefold())):
        month = _MONTH_OF.get(token)
        tokens.append(token if token.isdigit() else f"{month:02d}" if month else "")
    yield from (token for token in tokens if len(token) == 6 or len(token) >= 8)
    for group in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if all(1 <= len(token) <= 4 for token in group):
            yield "".join(token.zfill(2) for token in group)
    for pair in itertools.pairwise(tokens):
        if sorted(map(len, pair)) == [4, 4]:
            yield "".join(pair)
