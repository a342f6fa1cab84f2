"""docs/benchmarks.md and its pictures out of docs/benchmarks.jsonl; no number comes from anywhere else."""

import re
import statistics

import instructions

HEAD = """# Benchmarks

Made by `benches/run` out of [benchmarks.jsonl](benchmarks.jsonl), a line a run; see [performance.md](performance.md)
for what was tried and why. {machine};
{date}, commit {commit}; {repetitions} a phase, interleaved: medians, and in brackets the least and the greatest.
Each line of the file names its own commit. Every client heard every message exactly once, intact, and in the same
order; else there would be no line here.

papayad runs as released: encrypted, all confinement, `log.durability = "interval"`. The goroutine servers
(`benches/peers/go`) check a token, append to a log and flush it each second; the event loop
(`benches/peers/node`) does the same; the floor (`benches/load/src/bin/floor.rs`) does none of it, one send(2) for
each client and message. ngircd (with TLS) and inspircd (plain) come from Debian, without what slows clients down on
purpose; they keep no log, send nobody its own words (so the order is compared speaker by speaker, and a delivery less
is counted for each message), and lines of IRC are too short for the paper's experiment. The bare processes
(`benches/load/src/bin/bare.rs`) are papayad's processes and its bell with nothing in them: plain text, a log under
flock(2), no token, no confinement, no JSON, nobody who flushes the log. Processor time is that of the server's control
group, all its processes and what the kernel did for them.
"""

INSTRUCTIONS = """
## Instructions

This machine's processor counts none, so they are counted in a virtual one whose clock is its instructions
(`benches/instructions.py`; QEMU's icount: one nanosecond each, tried once with a program of {counted:,}), by the
server's control group, the kernel's included; interrupts are charged to whoever runs. An instruction that repeats
itself counts once for each repetition; those that copy single bytes are hidden from kernel and C library.

{machine}.

That kernel reaches the sandbox level "landlock-6" (all but its audit log of refusals); the programs are the same. One
run each; Node and the IRC servers are not in that machine. papayad and the bare processes gather messages, and the others do not: what that
saves in instructions it costs in latency, which is in the tables above. With the goroutines, 500 messages a second take
nearly all of that processor, with the load generator's part; no message of any run took 200 ms.

Thousands a delivery, of 100 bytes:
{measured}
"""

PAPER = """
## The paper's experiment

The paper ("papayaChat", TU Munich, 2022) compared a server of a process a client with one of goroutines, at 1 Mbit/s
for each of 1 to 64 connections. It reported 2.53 % of the processor for C at both 32 and 64 connections, and 36 %
for Go. That cannot be: its samples of `top` held at most 18 rows, so of the 65 processes only 18 were added up; the
head lines of the same files say 14.8 % against 42.7 %. Other things were not alike either: C read up to 4096 bytes
at a time, Go 1024; Go quoted each message (`%q`), and wrote without a buffer.

Here all do the same work: a token, encryption (but for those marked as plain), a file to append to, and each
connection is sent 1 Mbit/s (100 messages of 1250 bytes a second, by whoever's turn it is). The processor time is the
control group's, every 500 ms; of one core, 100 % being all of it.
"""


def write(root, results):
    # A phase that was run again is told by its newest run alone.
    newest = {}
    for r in results:
        newest[r["phase"]] = max(newest.get(r["phase"], ""), r["run"])
    results = [r for r in results if r["run"] == newest[r["phase"]]]
    docs = root / "docs"
    (docs / "benchmarks").mkdir(exist_ok=True)
    servers = list(dict.fromkeys(r["server"] for r in results))

    def values(phase, server, key):
        return [r[key] for r in results if r["phase"] == phase and r["server"] == server and key in r]

    def cell(phase, server, key, form="{:.1f}"):
        found = values(phase, server, key)
        if not found:
            return "-"
        middle, least, most = statistics.median(found), min(found), max(found)
        text = form.format(middle)
        return text if len(found) == 1 else f"{text} ({form.format(least)}–{form.format(most)})"

    def median(phase, server, key):
        found = values(phase, server, key)
        return statistics.median(found) if found else None

    def measured(phases):
        """Which commit's they are, where there are several; of the later ones, which phases. `phases`: a regular
        expression."""
        phases_of = {}
        for r in results:
            if re.fullmatch(phases, r["phase"]):
                phases_of.setdefault(r["commit"], {})[r["phase"]] = True
        if len({r["commit"] for r in results}) == 1 or not phases_of:
            return ""
        first, *later = phases_of
        later = [f"; {commit} for {', '.join(phases_of[commit])}" for commit in later]
        return f"\nCommit {first}{''.join(later)}.\n"

    last = results[-1]
    most = 1 + max(r["repetition"] for r in results)
    out = HEAD.format(machine=last["machine"], date=last["run"][:10], commit=" and ".join(dict.fromkeys(r["commit"] for r in results)),
                      repetitions="one run" if most == 1 else f"up to {most} runs")
    out += goals(root, median, servers)

    for title, phase, columns in (
        ("64 clients, 50 messages a second", "rate50", LATE),
        ("64 clients, 500 messages a second", "rate500", LATE),
        ("Saturation, 64 clients, 64 messages under way each", "flood", [
            ("deliveries/s", "deliveries_per_second", "{:.0f}"), ("CPU µs a delivery", "cpu_us_per_delivery", "{:.2f}"),
            *SHARES]),
        ("Two clients, 8 messages under way each", "window8", [
            ("deliveries/s", "deliveries_per_second", "{:.0f}"), ("CPU µs a delivery", "cpu_us_per_delivery", "{:.2f}"),
            *SHARES]),
        ("An idle room of 64, 2 messages a second", "single", LATE),
        ("256 clients, 50 messages a second", "clients256", LATE),
        ("1000 clients, 50 messages a second", "clients1000", LATE),
        ("To join, and to be there (64 clients)", "rate500", [
            ("join, CPU ms", "join_ms", "{:.2f}"), ("first join, CPU ms", "first_join_ms", "{:.1f}"),
            ("memory a client, kB", "memory_kb_per_client", "{:.0f}")]),
    ):
        out += f"\n## {title}\n{measured(phase)}\n| server | " + " | ".join(c[0] for c in columns) + " |\n" + "|---" * (1 + len(columns)) + "|\n"
        for server in servers:
            out += f"| {server} | " + " | ".join(cell(phase, server, key, form) for _, key, form in columns) + " |\n"
    out += "\npapayad's first join is by token (argon2id), the others are by ticket; its peers have no tickets, and hash a "
    out += "token by SHA-256.\n"

    if any(r["phase"].startswith("instructions-") for r in results):
        counted = [r for r in results if "counted_by" in r]
        out += INSTRUCTIONS.format(counted=instructions.COUNTED, machine=counted[-1]["counted_by"], measured=measured("instructions-.*"))
        columns = [(title, f"instructions-{phase}") for title, phase in (
            ("64 clients, 50/s", "rate50"), ("64 clients, 500/s", "rate500"), ("256 clients, 50/s", "clients256"), ("1000 clients, 50/s", "clients1000"))]
        out += "| server | " + " | ".join(title for title, _ in columns) + " | at 500/s: p99 ms | processor used, % |\n" + "|---" * (3 + len(columns)) + "|\n"
        for server in servers:
            cells = [cell(phase, server, "thousand_instructions_per_delivery", "{:.2f}") for _, phase in columns]
            used = [sum(values("instructions-rate500", server, key)) for key in ("cpu_percent", "load_cpu_percent")]
            cells += [cell("instructions-rate500", server, "p99_ms"), f"{sum(used):.0f}"]
            if cells[0] != "-":
                out += f"| {server} | " + " | ".join(cells) + " |\n"

    crowds = sorted((r for r in results if r["phase"].startswith("crowd")), key=lambda r: r["clients"])
    if crowds:
        out += f"\n## Idle clients by the thousand\n{measured('crowd.*')}\npapayad alone; one run each. One message a second is said: the median, and "
        out += "the last of all who heard one. A restart is from\nthe end's begin until as many new connections by "
        out += "ticket are in the room, four at a time.\n\n"
        out += "| clients | memory, GiB, all of the service | idle, % of a core | message: p50 ms | the last ms | join, CPU ms | end, s | restart, s |\n" + "|---" * 8 + "|\n"
        for r in crowds:
            out += (f"| {r['clients']} | {r['idle_memory_bytes'] / (1 << 30):.2f} | {r['idle_cpu_percent']:.2f} | {r['p50_ms']:.0f} | {r['max_ms']:.0f} "
                    f"| {r['join_ms']:.1f} | {r['stop_seconds']:.1f} | {r['restart_seconds']:.1f} |\n")

    out += PAPER + measured("paper.*") + "\n| connections | " + " | ".join(f"{s}: mean %, variation" for s in servers) + " |\n"
    out += "|---" * (1 + len(servers)) + "|\n"
    counts = (1, 2, 4, 8, 16, 32, 64)
    for n in counts:
        out += f"| {n} | " + " | ".join(
            f"{cell(f'paper{n}', s, 'cpu_mean_percent')}, {cell(f'paper{n}', s, 'cpu_variation', '{:.2f}')}"
            for s in servers) + " |\n"
    lines = {s: [(n, median(f"paper{n}", s, "cpu_mean_percent")) for n in counts] for s in servers}
    out += picture(docs, "paper", "CPU, % of a core, by connections at 1 Mbit/s", lines)

    out += f"\n## Growth\n{measured('growth.*')}\npapayad alone; one run each.\n"
    for name, what, key in (
        ("clients", "CPU µs a delivery, by clients, at 50 messages a second", "cpu_us_per_delivery"),
        ("rate", "CPU µs a delivery, by messages a second, 64 clients", "cpu_us_per_delivery"),
        ("bytes", "CPU µs a delivery, by bytes of a message, 64 clients", "cpu_us_per_delivery"),
    ):
        prefix = f"growth-{name}"
        found = sorted({int(r["phase"].removeprefix(prefix)): r[key] for r in results
                        if r["phase"].startswith(prefix)}.items())
        if found:
            out += picture(docs, prefix, what, {"papayad": found})
            out += "\n| " + " | ".join(str(x) for x, _ in found) + " |\n" + "|---" * len(found) + "|\n"
            out += "| " + " | ".join(f"{y:.2f}" for _, y in found) + " |\n"
    prefix = "growth-log"
    logs = sorted((int(r["phase"].removeprefix(prefix)), r) for r in results if r["phase"].startswith(prefix))
    if logs:
        out += "\nA log of so many megabytes: to start on it until the door is open, and to read its last 1,000 messages by "
        out += "time\n(`papaya history --since`) and by offset (`papaya tail --from`), each with a join by token (argon2id):\n"
        out += "medians of five.\n\n| MB | start ms | start, CPU ms | history ms | history, CPU ms | resume ms | resume, CPU ms |\n"
        out += "|---" * 7 + "|\n"
        for megabytes, r in logs:
            keys = ("start_ms", "start_cpu_ms", "history_ms", "history_cpu_ms", "resume_ms", "resume_cpu_ms")
            out += f"| {megabytes} | " + " | ".join(f"{r[key]:.1f}" for key in keys) + " |\n"
    (docs / "benchmarks.md").write_text(out)
    write_roles(docs / "performance.md", {r["phase"]: r for r in results if "roles-" in r["phase"]})


BEGIN, END = "<!-- made by benches/run -->\n", "<!-- end of what is made -->\n"
TITLES = {"roles-rate50": (64, 50), "roles-rate500": (64, 500), "roles-window8": (2, None), "roles-idle": (64, 0)}


def write_roles(path, found):
    """The tables of what each role does, between two marks of a page that is otherwise written by hand."""
    if not found:
        return
    out = ""
    for phase, (clients, rate) in TITLES.items():
        if phase not in found:
            continue
        r = found[phase]
        per = rate * clients if rate else None
        counted = any("calls_per_second" in v for v in r["roles"].values())
        out += {None: "\nTwo clients with 8 messages under way each", 0: f"\n{clients} idle clients, for a minute"}.get(
            rate, f"\n{clients} clients, {rate} messages a second") + ":\n\n"
        head = ["role", "processes", "CPU, % of a core", "wake-ups/s", "CPU µs a wake-up"]
        head += ["system calls/s besides ppoll(2)"] if counted else []
        head += ["and for each delivery"] if counted and per else []
        # Of the virtual machine, over two seconds.
        instructed = found.get(f"instructions-{phase}", {}).get("roles", {})
        head += ["thousand instructions a wake-up", "and for each delivery"] if instructed else []
        out += "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n"
        for role, v in r["roles"].items():
            wakes, calls = v["wakes_per_second"], v.get("calls_per_second")
            each = f"{v['cpu_percent'] * 1e4 / wakes:.0f}" if wakes > 1 else "-"
            cells = [role, v["processes"], f"{v['cpu_percent']:.2f}", f"{wakes:.1f}", each]
            cells += ["-" if calls is None else f"{calls:.1f}"] if counted else []
            cells += ["-" if calls is None else f"{calls / per:.2f}"] if counted and per else []
            if instructed:
                i = instructed.get(role, {"instructions": 0, "wakes": 0})
                cells += [f"{i['instructions'] / i['wakes'] / 1e3:.0f}" if i["wakes"] > 1 else "-", f"{i['instructions'] / (2 * per) / 1e3:.2f}"]
            out += "| " + " | ".join(map(str, cells)) + " |\n"
    if idle := found.get("roles-idle"):
        out += "\nMemory of an idle client, in kB:\n\n| RECV's and SEND's own pages | pages that the two share | the kernel's | of it page tables |\n"
        out += "|---|---|---|---|\n| " + " | ".join(f"{idle[k]:.0f}" for k in ("private_kb", "shared_kb", "kernel_kb", "page_tables_kb")) + " |\n"
    head, _, rest = path.read_text().partition(BEGIN)
    path.write_text(head + BEGIN + out + "\n" + END + rest.partition(END)[2])


SHARES = [("the server's share, % of a core", "cpu_percent", "{:.0f}"),
          ("the load generator's", "load_cpu_percent", "{:.0f}")]
LATE = [("CPU µs a delivery", "cpu_us_per_delivery", "{:.2f}"), ("p50 ms", "p50_ms", "{:.1f}"),
        ("p99 ms", "p99_ms", "{:.1f}"), ("p99.9 ms", "p999_ms", "{:.1f}")]


def goals(root, median, servers):
    """The goals with what was measured; words about those that are not met are in benches/remarks.md."""
    ours, tls, floor, bare = "papayad", "goroutines, TLS", "floor", "bare processes"
    remarks = {}
    for part in (root / "benches/remarks.md").read_text().split("\n## ")[1:]:
        name, _, text = part.partition("\n")
        remarks[name.strip()] = " ".join(text.split())
    peers = [s for s in servers if s not in (ours, floor, bare)]
    # All of them, or it is not known.
    best = [median("flood", s, "deliveries_per_second") for s in peers]
    best = max(best) if best and all(best) else float("nan")
    cpu = "cpu_us_per_delivery"
    ask = lambda phase, server, key: median(phase, server, key) or float("nan")
    count = lambda phase, server: ask(f"instructions-{phase}", server, "thousand_instructions_per_delivery")
    rows = [
        ("50/s instructions", "64 clients, 50/s: instructions of a delivery at most goroutine TLS's",
         count("rate50", ours), count("rate50", tls), "thousand"),
        ("500/s instructions", "64 clients, 500/s: instructions of a delivery at most the floor's",
         count("rate500", ours), count("rate500", floor), "thousand"),
        ("500/s half instructions", "64 clients, 500/s: instructions of a delivery at most half of goroutine TLS's",
         count("rate500", ours), count("rate500", tls) / 2, "thousand"),
        ("growth instructions", "1000 clients: instructions of a delivery at most 15 % above 64's",
         count("clients1000", ours), 1.15 * count("rate50", ours), "thousand"),
        ("50/s", "64 clients, 50/s: CPU of a delivery at most goroutine TLS's", ask("rate50", ours, cpu), ask("rate50", tls, cpu), "µs"),
        ("500/s", "64 clients, 500/s: CPU of a delivery at most the floor's", ask("rate500", ours, cpu), ask("rate500", floor, cpu), "µs"),
        ("500/s half", "64 clients, 500/s: CPU of a delivery at most half of goroutine TLS's", ask("rate500", ours, cpu), ask("rate500", tls, cpu) / 2, "µs"),
        ("500/s latency", "64 clients, 500/s: p99 at most 20 ms", ask("rate500", ours, "p99_ms"), 20, "ms"),
        ("saturation", "saturation: at least twice the best peer's", -ask("flood", ours, "deliveries_per_second"), -2 * best, "/s"),
        ("saturation floor", "saturation: within reach of the floor or past it", -ask("flood", ours, "deliveries_per_second"),
         -ask("flood", floor, "deliveries_per_second"), "/s"),
        ("window 8", "two clients, window 8: at least goroutine TLS's", -ask("window8", ours, "deliveries_per_second"),
         -ask("window8", tls, "deliveries_per_second"), "/s"),
        ("idle room", "one message in an idle room of 64: p50 within 1.5 times goroutine TLS's", ask("single", ours, "p50_ms"),
         1.5 * ask("single", tls, "p50_ms"), "ms"),
        ("growth", "1000 clients: CPU of a delivery at most 15 % above 64's", ask("clients1000", ours, cpu),
         1.15 * ask("rate50", ours, cpu), "µs"),
        ("memory", "memory of an idle client of 10,000, all counted: at most 280 kB", ask("crowd10000", ours, "memory_kb_per_client"), 280, "kB"),
        ("ticket", "join by ticket: at most 4 ms CPU", ask("rate500", ours, "join_ms"), 4, "ms"),
        ("crowd memory", "10,000 idle clients: held in 3 GiB", ask("crowd10000", ours, "idle_memory_bytes") / (1 << 30), 3, "GiB"),
        ("crowd idle", "10,000 idle clients: under 3 % of a core", ask("crowd10000", ours, "idle_cpu_percent"), 3, "%"),
        ("crowd message", "10,000 clients: a message reaches all of them in under a second", ask("crowd10000", ours, "max_ms") / 1e3, 1, "s"),
        ("crowd restart", "10,000 clients: all back within 60 s of a restart", ask("crowd10000", ours, "restart_seconds"), 60, "s"),
        ("paper", "the paper's experiment, 64 connections: at most half of goroutine TLS's CPU",
         ask("paper64", ours, "cpu_mean_percent"), ask("paper64", tls, "cpu_mean_percent") / 2, "%"),
    ]
    out = "\n## Goals\n\n| goal | measured | bound | |\n|---|---|---|---|\n"
    unmet = []
    for name, goal, found, bound, unit in rows:
        met = "met" if found <= bound and found else "not measured" if found != found or bound != bound else "**not met**"
        if met != "met":
            unmet.append((name, goal))
        form = "{:.0f}" if abs(bound) > 1000 else "{:.1f}"
        shown = [f"{form.format(abs(value))} {unit}" if value == value else "-" for value in (found, bound)]
        out += f"| {goal} | {shown[0]} | {shown[1]} | {met} |\n"
    out += "\nThe goals of a delivery are in instructions; the same in processor time, which is what an operator pays, is beside them\n"
    out += "and not the same: which part of that the caches have, which the change of context, is not measured.\n"
    out += "\nWhat stands in the way of those that are not met:\n\n"
    for name, goal in unmet:
        out += f"- {goal}: {remarks.get(name, 'not explained yet.')}\n"
    return out


COLOURS = ["#d9480f", "#1c7ed6", "#4dabf7", "#2b8a3e", "#868e96", "#862e9c", "#c2255c", "#e67700"]


def picture(docs, name, title, lines):
    """A curve for each server; both axes logarithmic."""
    import math
    points = [(x, y) for line in lines.values() for x, y in line if y]
    if not points:
        return ""
    scale = lambda v, low, high, length: length * (math.log(v) - math.log(low)) / max(math.log(high) - math.log(low), 1e-9)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    left, top, width, height = 60, 30, 480, 220
    at = lambda x, y: (left + scale(x, min(xs), max(xs), width), top + height - scale(y, min(ys), max(ys), height))
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 160}" height="{top + height + 40}" '
           f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/><text x="{left}" y="18">{title}</text>']
    for x in sorted(set(xs)):
        svg.append(f'<text x="{at(x, min(ys))[0]:.0f}" y="{top + height + 18}" text-anchor="middle">{x}</text>')
    for y in (min(ys), (min(ys) * max(ys)) ** 0.5, max(ys)):
        svg.append(f'<text x="{left - 6}" y="{at(min(xs), y)[1]:.0f}" text-anchor="end">{y:.3g}</text>')
    for colour, (server, line) in zip(COLOURS, lines.items()):
        places = [at(x, y) for x, y in line if y]
        if not places:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg.append(f'<text x="{places[-1][0] + 6:.0f}" y="{places[-1][1] + 4:.0f}" fill="{colour}">{server}</text>')
    (docs / "benchmarks" / f"{name}.svg").write_text("\n".join(svg) + "\n</svg>\n")
    return f"\n![{title}](benchmarks/{name}.svg)\n"
