"""What a search has found, for a person to read and for `exchange config apply`."""

from __future__ import annotations

import msgspec

from chaos.tune.space import nested, settings_of
from chaos.tune.study import Result
from exchange.settings import Settings
from exchange.settings_text import changes_between


def as_toml(result: Result) -> str:
    """Return the values that are proposed, as a file that `exchange config apply` takes."""
    header = "# Found by `chaos tune`; what is not named keeps its default.\n"
    return header + msgspec.toml.encode(nested(result.values)).decode()


def as_markdown(result: Result) -> str:
    """Return the proposal with its evidence."""
    lines = ["# What the search proposes", "", verdict_of(result), ""]
    if result.values:
        lines += ["| setting | default | proposed | part in the result |", "|---|---|---|---|"]
        for change in changes_between(Settings(), settings_of(result.values)):
            part = result.sensitivity.get(change.name)
            told = "not known" if part is None else f"{part:.0%}"
            lines.append(f"| `{change.name}` | {change.before} | {change.after} | {told} |")
        lines.append("")
    lines.append(f"{result.trials} trials, {result.refused} of them refused for a broken rule or for no verdict.")
    lines.append(f"On the storms searched: defaults {result.default_score:.3f}, best trial {result.best_score:.3f}.")
    if result.gain is not None:
        rows = zip(result.gain.default, result.gain.candidate, strict=True)
        lines += ["", "| held out | defaults | proposed |", "|---|---|---|"]
        lines += [f"| run {number} | {a:.3f} | {b:.3f} |" for number, (a, b) in enumerate(rows, 1)]
    return "\n".join(lines) + "\n"


def verdict_of(result: Result) -> str:
    """Return a sentence: whether it should be taken."""
    gain = result.gain
    if not result.values:
        return "Keep the defaults: the middle of the best trials is what they are."
    if gain is None:
        return "Not decided: no storm was held out."
    measured = f"a gain of {gain.mean:+.3f} on what was held out, noise {gain.noise:.3f}, spread {gain.spread:.3f}"
    if result.is_accepted:
        return f"Take it: {measured}."
    return f"Keep the defaults: {measured}, which is no more than chance gives."
