"""Tables and progress in the terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pluralign.files import plain

if TYPE_CHECKING:
    from pluralign.comparisons import Comparisons
    from pluralign.queries.enquiry import Resemblance
    from pluralign.queries.interview import Question, Reply
    from pluralign.queries.regions import Region
    from pluralign.scans import Scan

# Wide enough for the tables where nobody looks at a window.
stdout = Console(width=None if sys.stdout.isatty() else 180)
stderr = Console(stderr=True)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(plain(value), allow_nan=False, ensure_ascii=False) + "\n")


def print_line(words: str, *, to: Console = stdout) -> None:
    """Words with a path or a name in them: never broken within it, and brackets in it are no markup."""
    to.print(words, markup=False, highlight=False, soft_wrap=True)


def print_study(results: Mapping[str, Any]) -> None:
    """The ladder, its controls, what unseen users get, and the verdict."""
    data, level = results["data"], round(100 * results["settings"]["level"])
    stdout.print(
        f"[bold]{escape(data['name'])}[/bold]  {data['decisions']:,} decisions of {data['users']:,} users, "
        f"{data['items']:,} items, {data['sources']:,} sources",
        highlight=False,
    )
    for finding in data["findings"]:
        stdout.print(f"[yellow]note[/yellow]  {escape(finding['message'])}", highlight=False)
    rows = {row["name"]: row for row in results["ladder"]["rows"]}
    table = Table(
        title=f"Held-out decisions of seen users, {results['ladder']['n_seeds']} splits; [..]: {level} % intervals "
        "clustered by user"
    )
    table.add_column("model")
    for column in ("accuracy", "users ± SD", "worst tenth", "log-prob", "points over pooled", "nats over pooled"):
        table.add_column(column, justify="right")
    table.add_column("control: accuracy with", justify="left")
    settings = _chosen(results["seeds"])
    for name, row in rows.items():
        if row["control"]:
            continue
        scores, gains = row["scores"], row["gains"]
        controls = [
            f"{each.removeprefix(name + ', ')} {_number(rows[each]['scores']['accuracy'], 3)}"
            for each in rows
            if each.startswith(f"{name}, ")
        ]
        table.add_row(
            name + settings.get(name, ""),
            _number(scores["accuracy"], 3),
            f"{_number(scores['accuracy_users'], 3)} ± {_number(scores['accuracy_users_sd'], 3)}",
            _number(scores["worst_decile"], 3),
            _number(-scores["log_loss"], 3),
            _gain(gains.get("accuracy"), 100.0, 1),
            _gain(gains.get("log_prob"), 1.0, 3),
            ", ".join(controls),
            style="bold" if name == results["verdict"]["rung"] else None,
        )
    stdout.print(table)
    latent = [seed["rungs"]["latent"]["settings"]["words"] for seed in results["seeds"] if "latent" in seed["rungs"]]
    for words in dict.fromkeys(latent):
        stdout.print(f"latent: {escape(words)}", highlight=False)
    if results["unseen_users"]:
        _print_unseen(results["unseen_users"], results["verdict"]["candidate"], level)
    _print_differences(results["heterogeneity"], level)
    if results["scan"]:
        _print_warnings(results["scan"]["findings"])
    verdict = results["verdict"]
    stdout.print(f"\n[bold]{verdict['answer'].capitalize()}.[/bold] {escape(verdict['reason'])}", highlight=False)


def _print_differences(found: Mapping[str, Any], level: int) -> None:
    """Do users differ, in what, and what would be seen."""
    tests, parts, power = found["tests"], found["components"], found["power"]
    lines = []
    if tests:
        shown = [f"{name}: p = {test['p_bootstrap']:.3g}, effect {test['effect']:.2f}" for name, test in tests.items()]
        lines.append("do users differ? score tests of " + "; ".join(shown))
    if parts:
        shares = ", ".join(f"{name} {_share(parts[name])}" for name in ("taste", "reliability", "chance"))
        lines.append(f"two users asked the same disagree in {_share(parts['disagreement'])}; of that {shares}")
    if power:
        lines.append(f"a gain of {power['detectable']:.1f} points would be seen in 8 of 10 cases")
    if lines:
        stdout.print(f"Is it taste or noise? ([..]: {level} % intervals)", style="italic", highlight=False)
        for line in lines:
            stdout.print(f"  {escape(line)}", highlight=False)


def _print_warnings(findings: list[Mapping[str, Any]]) -> None:
    """What the scan found that may change what the results mean; `pluralign scan` prints it all."""
    for finding in findings:
        if finding["severity"] != "note":
            colour = "red" if finding["severity"] == "error" else "yellow"
            words = escape(f"{finding['message']}; {finding['advice']}")
            stdout.print(f"[{colour}]{finding['severity']}[/{colour}]  {words}", highlight=False)


def _share(interval: Mapping[str, Any]) -> str:
    """A share in per cent with its interval."""
    estimate = f"{100 * interval['estimate']:.0f} %"
    if interval["low"] is None:
        return estimate
    return f"{estimate} [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _print_unseen(tables: list[Mapping[str, Any]], candidate: str, level: int) -> None:
    """Accuracy of every rung by m, and the candidate's gain over `pooled`."""
    table = Table(title="Unseen users, placed from m comparisons of their own: accuracy")
    table.add_column("m", justify="right")
    names = [row["name"] for row in tables[0]["rows"]]
    for name in names:
        table.add_column(name, justify="right")
    shown = candidate if candidate in names and candidate != "pooled" else None
    if shown:
        table.add_column(f"{shown}: nats over pooled, {level} %", justify="right")
    for each in tables:
        rows = {row["name"]: row for row in each["rows"]}
        cells = [_number(rows[name]["scores"]["accuracy"], 3) for name in names]
        if shown:
            cells.append(_gain(rows[shown]["gains"]["log_prob"], 1.0, 3))
        table.add_row(str(each["n_context"]), *cells)
    stdout.print(table)


def _chosen(seeds: list[Mapping[str, Any]]) -> dict[str, str]:
    """What each rung chose in each split: " (K 3)" where all agree, " (K 3, 2, 3)" where not."""
    shown = {"n_clusters": "K", "rank": "rank"}
    found = {}
    for rung in seeds[0]["rungs"]:
        for key, word in shown.items():
            values = [str(seed["rungs"][rung]["settings"].get(key, "")) for seed in seeds]
            if any(values):
                found[rung] = f" ({word} {values[0] if len(set(values)) == 1 else ', '.join(values)})"
    return found


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _gain(interval: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if interval is None or interval["estimate"] is None:
        return ""
    estimate = f"{interval['estimate'] * scale:+.{digits}f}"
    if interval["low"] is None:
        return estimate
    return f"{estimate} [{interval['low'] * scale:+.{digits}f}, {interval['high'] * scale:+.{digits}f}]"


_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_scan(comparisons: Comparisons, scan: Scan) -> None:
    """The baselines, and each finding with what to do."""
    stdout.print(
        f"[bold]{escape(comparisons.name)}[/bold]  {comparisons.n_decisions:,} decisions of {comparisons.n_users:,} "
        f"users, {len(comparisons.items):,} items, {len(comparisons.source_ids):,} sources",
        highlight=False,
    )
    table = Table(title="What scores without knowing anybody's taste; [..]: 95 % intervals clustered by user")
    table.add_column("baseline")
    table.add_column("accuracy", justify="right")
    table.add_column("chance", justify="right")
    table.add_column("on unseen")
    for baseline in scan.baselines:
        accuracy = baseline.accuracy
        table.add_row(
            escape(baseline.name),
            f"{_number(accuracy.estimate, 3)} [{_number(accuracy.low, 3)}, {_number(accuracy.high, 3)}]",
            _number(baseline.chance, 2),
            {"source": "sources", "item": "responses", "user": "users", "decision": "decisions"}[baseline.held_out_by]
            if baseline.cross_validated
            else "(nothing fitted)",
        )
    if scan.baselines:
        stdout.print(table)
    for finding in scan.findings:
        colour = _COLOURS[finding.severity]
        stdout.print(
            f"[{colour}]{finding.severity:7}[/{colour}] [bold]{escape(finding.name)}[/bold]  {escape(finding.message)}",
            highlight=False,
        )
        more = ", ..." if len(finding.rows) > 5 else ""
        where = f"rows {', '.join(map(str, finding.rows[:5]))}{more}; " if finding.rows else ""
        stdout.print(f"        {where}{escape(finding.advice)}", style="dim", highlight=False)
    if not scan.findings:
        stdout.print("nothing found", highlight=False)
    if scan.note:
        stdout.print(f"\n{escape(scan.note)}", highlight=False)


def print_fit(found: Mapping[str, Any]) -> None:
    """What was fitted, and the evidence behind its settings."""
    stdout.print(
        f"[bold]{found['users']}[/bold]  log-likelihood {found['log_likelihood']:.3f}  "
        f"{found['n_parameters']:,} parameters  {found['n_comparisons']:,} comparisons of {found['n_users']:,} users",
        highlight=False,
    )
    for name in ("ridge", "n_clusters", "shares", "rank", "spread", "lapse", "position_bias"):
        if name in found:
            value = found[name]
            shown = ", ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else f"{value:.4g}"
            stdout.print(f"  {name} {shown}", highlight=False)
    choice = plain(found["choice"])
    if isinstance(choice, list) and len(choice) > 1:
        table = Table(title="candidates")
        for column in choice[0]:
            table.add_column(str(column), justify="right")
        for row in choice:
            table.add_row(*(_cell(value) for value in row.values()))
        stdout.print(table)


def print_evaluation(found: Mapping[str, Any]) -> None:
    """Scores of a saved model."""
    found = plain(found)
    scores, accuracy = found["scores"], found["accuracy"]
    stdout.print(
        f"[bold]{found['users']}[/bold] on {found['n_comparisons']:,} comparisons, "
        f"{found['n_comparisons_of_unknown_users']:,} of them by users it does not know",
        highlight=False,
    )
    interval = "" if accuracy["low"] is None else f" [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    stdout.print(
        f"  accuracy {accuracy['estimate']:.3f}{interval}, over users {_number(scores['accuracy_users'], 3)} "
        f"± {_number(scores['accuracy_users_sd'], 3)}, worst tenth {_number(scores['worst_decile'], 3)}\n"
        f"  log loss {scores['log_loss']:.4f} nats, Brier {scores['brier']:.4f}, "
        f"calibration error {_number(scores['calibration']['error'], 3)}",
        highlight=False,
    )
    for key, words in (
        ("gain_over_unknown_user", "the unknown user's model"),
        ("gain_over_pooled", "the pooled model"),
    ):
        if key in found:
            gain = found[key]
            stdout.print(
                f"  over {words}: {_gain(gain['accuracy'], 100.0, 1)} points, {_gain(gain['log_prob'], 1.0, 3)} nats",
                highlight=False,
            )


def print_judged(found: Mapping[str, Any]) -> None:
    """Accuracies of a policy or a reward model, and what is personal about them."""
    found = plain(found)
    what = "reward model" if found["beta"] is None else f"policy, by its implicit reward (beta {found['beta']:g})"
    stdout.print(
        f"{what} on {found['n_decisions']:,} decisions of {found['n_known_users']:,} users it knows and "
        f"{found['n_unseen_users']:,} it does not",
        highlight=False,
    )
    rows = [
        ("accuracy, known users", _interval(found["top"])),
        ("  mean over users ± SD", f"{_number(found['average'], 3) or '-'} ± {_number(found['average_sd'], 3) or '-'}"),
        ("accuracy as an unknown user, all", _interval(found["generic_all"])),
        ("accuracy as an unknown user, unseen users", _interval(found["generic_unseen"])),
    ]
    if found["table"] is not None:
        for row in found["table"]["rows"]:
            gain = row["gains"].get("accuracy")
            points = _gain(gain, 100.0, 1)
            accuracy = _number(row["scores"]["accuracy"], 3) or "-"
            rows.append((f"  {row['name']}", f"{accuracy}, {points} points" if points else accuracy))
    for name, words in (("over_generic", "an unknown user's"), ("over_other", "another user's (control)")):
        if found[name]:
            gain = found[name]
            rows.append(
                (
                    f"personal minus {words}",
                    f"{_gain(gain['accuracy'], 100.0, 1) or '-'} points, {_gain(gain['log_prob'], 1.0, 3)} nats",
                )
            )
    table = Table(show_header=False, box=None)
    for left, right in rows:
        table.add_row(left, right)
    stdout.print(table, highlight=False)


def print_written(rows: Sequence[Mapping[str, Any]]) -> None:
    """Responses or rewards, one after the other under their prompt."""
    before = None
    for row in rows:
        prompt = row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"], ensure_ascii=False)
        if prompt != before:
            stdout.print(f"[bold]{escape(visible(prompt))}[/bold]", highlight=False)
            before = prompt
        value = f" ({row['reward']:+.3f})" if "reward" in row else ""
        who = escape(visible(str(row.get("user") or "somebody unknown")))
        stdout.print(f"  [cyan]{who}[/cyan]{value}  {escape(visible(str(row['response'])))}", highlight=False)


def _interval(found: Mapping[str, Any] | None) -> str:
    """An accuracy with its interval."""
    if found is None or found["estimate"] is None:
        return "-"
    low, high = found["low"], found["high"]
    return f"{found['estimate']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


_REASONS = {
    "enough": "no further question is expected to change what you would be given",
    "limit": "that was the last question",
    "quit": "stopped",
    "pool": "there is no pair left to ask",
}
_REPLIES = {"1": "first", "2": "second", "s": "skip", "skip": "skip", "q": "quit", "quit": "quit"}
_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # what moves the cursor, turns the text round or cannot be seen
_PLAIN = "\n\t\u200c\u200d"  # the joiners belong to words and emoji


def visible(text: str) -> str:
    """Text that cannot steer a terminal: control characters are spelled out, but for new lines and tabs."""
    return "".join(
        each if each in _PLAIN or unicodedata.category(each) not in _HIDDEN else ascii(each)[1:-1] for each in text
    )


def print_questions(found: Mapping[str, Any]) -> None:
    """The pairs to ask next, and whether they are worth asking."""
    name, value = escape(visible(found["user"])), found["value"]
    whence = "" if found["known"] else ", new to the model"
    stdout.print(f"[bold]{name}[/bold]{whence}, {found['n_answers']:,} answers given", highlight=False)
    _print_place(stdout, found["regions"], found["resembles"])
    for i, question in enumerate(found["questions"], start=1):
        stdout.print(
            f"\n[bold]{i}[/bold]  {found['method']} {question['score']:.4g}, P(1 is preferred) "
            f"{question['probability']:.2f}",
            highlight=False,
        )
        _print_pair(stdout, question["prompt"], question["first"], question["second"])
    enough = f"; enough is known (less than {value['epsilon']:g})" if value["enough"] else ""
    stdout.print(
        f"\none answer is expected to gain {value['gain']:.4f} nats of reward, "
        f"knowing the user {value['perfect']:.4f}{enough}",
        highlight=False,
    )


class Talk:
    """The person at the keyboard: what they are shown, and what they say.

    Args:
        console: Where questions are shown; replies come from stdin.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def put(self, question: Question) -> Reply:
        """Show a question and wait for the answer; the end of the input is `quit`."""
        self.console.print(f"\n[bold]Question {question.number}[/bold]", highlight=False)
        _print_pair(self.console, question.prompt, question.first, question.second)
        while True:
            self.console.print("Which is better? 1, 2, s (skip), q (quit): ", end="", highlight=False)
            self.console.file.flush()
            line = sys.stdin.readline()
            if not line:
                self.console.print()
                return "quit"
            reply = _REPLIES.get(line.strip().lower())
            if not sys.stdin.isatty():
                self.console.print(Text(visible(line.strip())))
            if reply is not None:
                return cast("Reply", reply)
            self.console.print("answer 1, 2, s or q", highlight=False)

    def place(self, regions: Sequence[Region], resembles: Sequence[Resemblance]) -> None:
        """Say where the answers so far put them."""
        _print_place(self.console, [each._asdict() for each in regions], [each._asdict() for each in resembles])

    def end(self, found: Mapping[str, Any]) -> None:
        """Say why it ended, and where the answers are."""
        self.console.print(
            f"\n{_REASONS[found['reason']]}; {found['n_answered_now']} answers, {found['n_skipped']} skipped",
            highlight=False,
        )
        where = [f"answers in {found['answers']}"] if found["answers"] else []
        where += [f"model in {found['out']}"] if found["out"] else []
        if where:
            print_line(", ".join(where), to=self.console)


def _print_pair(console: Console, prompt: str, first: str, second: str) -> None:
    """A prompt, and two responses side by side."""
    if prompt:
        console.print(Text(visible(prompt), style="italic"))
    table = Table(show_lines=False, expand=True)
    table.add_column("1", ratio=1)
    table.add_column("2", ratio=1)
    table.add_row(Text(visible(first)), Text(visible(second)))
    console.print(table)


def _print_place(
    console: Console, regions: Sequence[Mapping[str, Any]], resembles: Sequence[Mapping[str, Any]]
) -> None:
    """Where somebody stands, and whom they resemble."""
    if regions:
        shown = ", ".join(f"{each['name']} {100 * each['probability']:.0f} %" for each in regions[:5])
        console.print(f"  where: {shown}", highlight=False)
    if resembles:
        shown = ", ".join(f"{visible(each['user'])} ({100 * each['agreement']:.0f} %)" for each in resembles)
        console.print(escape(f"  like (chance of the same answer): {shown}"), highlight=False)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.5g}"
        case list():
            return " ".join(_cell(v) for v in value)
    return str(value)
