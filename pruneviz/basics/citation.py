"""Papers, as they are cited."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A citation. ``section`` names the place of the formula."""

    key: str
    authors: str
    title: str
    year: int
    venue: str
    url: str
    section: str = ""

    @property
    def citation(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.venue}."

    @property
    def short(self) -> str:
        names = [a.strip() for a in self.authors.split(",") if a.strip()] or ["?"]
        surname = names[0].split()[-1]
        who = (
            surname
            if len(names) == 1
            else f"{surname} & {names[1].split()[-1]}"
            if len(names) == 2
            else f"{surname} et al."
        )
        return f"{who} {self.year}"

    @property
    def bibtex(self) -> str:
        kind = "article" if self.venue.startswith("arXiv") else "inproceedings"
        place = "journal" if kind == "article" else "booktitle"
        authors = " and ".join(a.strip() for a in self.authors.split(","))
        return (
            f"@{kind}{{{self.key},\n  author = {{{authors}}},\n  title = {{{self.title}}},\n"
            f"  {place} = {{{self.venue}}},\n  year = {{{self.year}}},\n  url = {{{self.url}}}\n}}"
        )
