# For tests that boot virtual machines: Debian's kernels and how they are started. To be sourced.
# shellcheck shell=bash disable=SC2034 # Whoever sources it uses its part.
cache=${XDG_CACHE_HOME:-/var/cache}/papayachat-tests
suite=bookworm
# Has the kernels and their initrds; tests/kernels.sh makes it.
kernels_tree=$cache/$suite-kernels
# A kernel's release begins with the first; the second is the level that it honestly has.
kernels=("6.1. landlock-2" "6.12. landlock-6")
# Seconds for one machine, which is emulated, from its start to its end.
patience=1200

# Whether the emulator is there, and not too old: with 7.2 (Debian 12's own) the kernels panic, 10 does.
have_emulator() {
    local major
    major=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge 10 ]
}

# A disk with all that is in a tree.
make_disk() { # TREE DISK
    truncate -s 2G "$2"
    mkfs.ext4 -q -F -d "$1" "$2"
}

# Starts a machine with a copy of the disk, and adds its process to `machines`.
start_machine() { # RELEASE DISK COPY CONSOLE KERNEL-ARGUMENTS
    local release
    release=$(basename "$(printf '%s\n' "$kernels_tree"/boot/vmlinuz-"$1"*)")
    release=${release#vmlinuz-}
    cp --sparse=always "$2" "$3"
    timeout "$patience" qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 1024 -no-reboot -display none \
        -serial "file:$4" -monitor none -nic none \
        -drive "file=$3,format=raw,if=virtio" \
        -kernel "$kernels_tree/boot/vmlinuz-$release" -initrd "$kernels_tree/boot/initrd.img-$release" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 quiet no_timer_check $5" </dev/null &
    machines+=($!)
}
