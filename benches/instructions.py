"""Instructions of a delivery, on machines whose processor counts none: the same programs in a virtual machine whose clock
is its instructions (QEMU's icount: one nanosecond each), so that processor time is instructions, the kernel's included.

The machine has one processor and Debian's newest kernel of tests/kernels.sh, which also makes its system."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

TREE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "papayachat-tests/bookworm-kernels"
# What the kernel reaches; see tests/machines.sh.
RELEASE, LEVEL = "6.12.", "landlock-6"
# The oldest emulator; see tests/machines.sh.
OLDEST = 10
# Seconds for all of it.
PATIENCE = 3600
PORT = 7722
ARGUMENTS = ("tsc=reliable", "mitigations=off", "no_timer_check")
# A message that takes longer has waited for the processor, which server and load generator share: milliseconds.
LATE = 200
# What shows that its clock counts instructions: a program that takes so many, and how far off that may be.
COUNTED = 500_000_000
EXACT = 0.01
LOOP = f"""
.globl _start
_start:
    mov ${COUNTED // 2}, %rcx
1:  dec %rcx
    jnz 1b
    mov $60, %eax
    xor %edi, %edi
    syscall
"""
# Without those that make the kernel and the C library copy a byte a repetition, each of which the emulator counts.
PROCESSOR = "max,-erms,-fsrm,-fzrm,-fsrs"


def missing():
    """What cannot be had here, if anything."""
    if os.geteuid() != 0:
        return "only root can make a system's tree"
    if os.uname().machine != "x86_64":
        return "the machine is one of x86_64"
    if emulator()[1] < OLDEST:
        return f"qemu-system-x86_64 is missing or older than {OLDEST}; tests/kernels.sh --install installs it"
    for tool in ("mkfs.ext4", "strip", "cc", "setpriv"):
        if not shutil.which(tool):
            return f"{tool} is missing; tests/kernels.sh --install installs it"
    if not kernel():
        return f"{TREE} is missing; tests/kernels.sh makes it"


def emulator():
    """What it calls itself, and its major version; nothing and 0 where it is not."""
    if not shutil.which("qemu-system-x86_64"):
        return "", 0
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0], int(re.match(r"QEMU emulator version (\d+)", said)[1])


def kernel():
    return max(TREE.glob(f"boot/vmlinuz-{RELEASE}*"), default=None)


def machine():
    """What counts."""
    return f"{emulator()[0]}, {PROCESSOR}, one processor, Linux {kernel().name.removeprefix('vmlinuz-')} with {' '.join(ARGUMENTS)}"


def measure(servers, phases, programs, guest):
    """Yields (phase, server's name, result). `phases`: name to (what load takes, the servers' names); `programs`: what the
    machine needs, at the paths that it has here, the load generator first; `guest`: the machine's first process."""
    with tempfile.TemporaryDirectory(prefix="papayachat-bench.") as work:
        work = pathlib.Path(work)
        root = work / "root"
        root.mkdir()
        copy_tree(root)
        for program in programs:
            there = root / program.relative_to("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["strip", "-o", there, program], check=True)
        subprocess.run(["cc", "-nostdlib", "-static", "-x", "assembler", "-", "-o", root / "loop"], input=LOOP, text=True, check=True)
        shutil.copy(guest, root / "guest")
        commands = [configured(server, work / f"server{number}", PORT + number, root) for number, server in enumerate(servers)]
        runs = [(name, arguments, server, command) for name, (arguments, wanted) in phases.items()
                for server, command in zip(servers, commands) if server.name in wanted]
        with open(root / "runs", "w") as lines:
            for name, arguments, server, command in runs:
                load = [programs[0], server.protocol, f"127.0.0.1:{server.port}", server.token, *arguments]
                words = (name, server.name, server.dir, server.port, " ".join(command), " ".join(map(str, load)))
                lines.write("\t".join(map(str, words)) + "\n")
        yield from results(boot(root, work), [(name, server.name) for name, _, server, _ in runs])


def copy_tree(root):
    """The system without what a machine with one purpose does not need."""
    leave = [f"--exclude=./{part}" for part in ("boot", "usr/lib/modules", "usr/share/doc", "usr/share/locale", "usr/share/man")]
    tar = subprocess.Popen(["tar", "-C", TREE, *leave, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-C", root, "-x"], stdin=tar.stdout, check=True)
    if tar.wait():
        raise SystemExit(f"benches/run: {TREE} cannot be copied")


def configured(server, directory, port, root):
    """Gives it a directory, in the machine where it is here; the words of its command."""
    server.dir, server.port, server.token = directory, port, directory / "token"
    directory.mkdir()
    server.token.write_text("benchmark\n")
    command = [str(part) for part in server.command(server)]
    config = directory / "papayad.toml"
    if config.exists():
        config.write_text(config.read_text() + f'[sandbox]\nrequire = "{LEVEL}"\n')
    there = root / directory.relative_to("/")
    shutil.copytree(directory, there)
    # papayad's roles, which are other users, come to it through all of them.
    there.chmod(0o755)
    there.parent.chmod(0o755)
    return command


def boot(root, work):
    """What the machine with this system says on its console until it stops."""
    disk, console = work / "disk", work / "console"
    subprocess.run(["truncate", "-s", "3G", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, disk], check=True)
    shutil.rmtree(root)
    release = kernel().name.removeprefix("vmlinuz-")
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", PROCESSOR, "-smp", "1",
        "-m", "3072", "-no-reboot", "-display", "none", "-serial", f"file:{console}", "-monitor", "none", "-nic", "none",
        "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe", "-kernel", kernel(), "-initrd", TREE / f"boot/initrd.img-{release}",
        "-append", f"root=/dev/vda rw console=ttyS0 panic=-1 quiet init=/guest {' '.join(ARGUMENTS)}"]
    ended = subprocess.run(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    if ended.returncode:
        raise SystemExit(f"benches/run: the machine that counts instructions failed: {ended.stderr}")
    return console.read_text(errors="replace").replace("\r", "").splitlines()


def results(said, expected):
    """(phase, server's name, result) of each run; ends the program if the machine did not do all, or does not count."""
    told = lambda what: [line.removeprefix(what).split("\t") for line in said if line.startswith(what)]
    loops = [int(loop) for [loop] in told("loop: ")]
    if "guest: end" not in said or told("failed: ") or len(loops) != 1:
        raise SystemExit("benches/run: the machine that counts instructions failed:\n" + "\n".join(said[-60:]))
    if abs(loops[0] / COUNTED - 1) > EXACT:
        raise SystemExit(f"benches/run: it does not count instructions: {loops[0]} for {COUNTED}")
    found = told("result: ")
    if [(phase, server) for phase, server, _ in found] != expected:
        raise SystemExit(f"benches/run: the machine that counts instructions did not run all, but {found}")
    for phase, server, result in found:
        result = json.loads(result)
        if result["cpu_us_per_delivery"] <= 0 or result["max_ms"] > LATE:
            raise SystemExit(f"benches/run: {phase}, {server}: the machine that counts instructions did not keep up: {result}")
        looks = {moment: {} for moment in ("before", "after")}
        for _, moment, role, *numbers in (line for line in told("role: ") if line[0] == phase):
            looks[moment][role] = [int(number) for number in numbers]
        roles = {role: {"processes": after[0], "instructions": after[1] - before[1], "wakes": after[2] - before[2]}
                 for role, after in looks["after"].items() for before in [looks["before"][role]]}
        if ("roles" in phase) != bool(roles):
            raise SystemExit(f"benches/run: {phase}: no roles were seen: {said[-20:]}")
        yield phase, server, result | ({"roles": roles} if roles else {})
