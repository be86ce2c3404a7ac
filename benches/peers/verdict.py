"""Targets, and whether they were reached."""

from dataclasses import dataclass


@dataclass
class Target:
    """One line of the result. `least`: the figure has to be at least the bound, else at most. `short` is the bound of the
    short form, where `bound` is kept for print. A figure without an interval is a count or a maximum. `once`: what it counts is
    wrong whatever else the machine does."""

    part: str
    what: str
    figure: float
    bound: float
    low: float = None
    high: float = None
    least: bool = False
    short: float = None
    unit: str = ""
    once: bool = False

    def verdict(self, is_short):
        """`at most` means beyond the run's own noise: it is missed when the whole interval lies beyond the bound."""
        bound = self.short if is_short and self.short is not None else self.bound
        low = self.figure if self.low is None else self.low
        high = self.figure if self.high is None else self.high
        if (high < bound) if self.least else (low > bound):
            return "MISSED"
        inside = self.figure >= bound if self.least else self.figure <= bound
        return "reached" if inside else "reached within noise"

    def row(self, is_short):
        bound = self.short if is_short and self.short is not None else self.bound
        interval = "" if self.low is None else f" [{number(self.low)}, {number(self.high)}]"
        unit = f" {self.unit}" if self.unit else ""
        return (f"| {self.part} | {self.what} | {number(self.figure)}{interval}{unit} | "
                f"{'at least' if self.least else 'at most'} {number(bound)}{unit} | {self.verdict(is_short)} |")


def once_more(targets, is_short):
    """What of a part was missed, where the part is to be measured once more, and that counts: the short form runs where others use
    the machine, a bad moment of which is in a time and a rate. What is wrong once is wrong."""
    missed = [one for one in targets if one.verdict(is_short) == "MISSED"]
    return missed if is_short and not any(one.once for one in missed) else []


def number(value):
    if value == int(value) and abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(targets, is_short):
    head = ["| | what | figure [95 %] | target | |", "|---|---|---|---|---|"]
    return "\n".join(head + [target.row(is_short) for target in targets])


def rows(head, lines):
    """A table of figures."""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] +
                     ["| " + " | ".join(line) + " |" for line in lines])
