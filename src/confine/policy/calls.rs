//! System calls by name: the one place that knows their numbers and which processor lacks which.
//!
//! The policies use names, so that they read the same for every processor. A call that one does
//! not have has no number there, and rules for it are left out of the filter.

use std::ffi::c_long;

/// What a name means on the processor that this was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// The number in the kernel's table.
    Is(c_long),
    /// This processor has no such call.
    NotHere,
}

/// Pairs each name with its constant; the second list holds what only x86_64 has, from the time
/// before the calls that replaced them.
macro_rules! table {
    (everywhere: $($name:ident = $number:ident)*; x86_64: $($old:ident = $old_number:ident)*;) => {
        /// Every name that a policy or an attack may use, with its number.
        pub const TABLE: &[(&str, Number)] = &[
            $((stringify!($name), Number::Is(libc::$number)),)*
            $(
                #[cfg(target_arch = "x86_64")]
                (stringify!($old), Number::Is(libc::$old_number)),
                #[cfg(not(target_arch = "x86_64"))]
                (stringify!($old), Number::NotHere),
            )*
        ];
    };
}

table! {
    everywhere:
        accept4 = SYS_accept4
        acct = SYS_acct
        add_key = SYS_add_key
        adjtimex = SYS_adjtimex
        bind = SYS_bind
        bpf = SYS_bpf
        brk = SYS_brk
        capset = SYS_capset
        chdir = SYS_chdir
        chroot = SYS_chroot
        clock_gettime = SYS_clock_gettime
        clock_nanosleep = SYS_clock_nanosleep
        clock_settime = SYS_clock_settime
        clone = SYS_clone
        clone3 = SYS_clone3
        close = SYS_close
        close_range = SYS_close_range
        connect = SYS_connect
        copy_file_range = SYS_copy_file_range
        delete_module = SYS_delete_module
        dup = SYS_dup
        dup3 = SYS_dup3
        epoll_create1 = SYS_epoll_create1
        eventfd2 = SYS_eventfd2
        execve = SYS_execve
        execveat = SYS_execveat
        exit = SYS_exit
        exit_group = SYS_exit_group
        faccessat = SYS_faccessat
        faccessat2 = SYS_faccessat2
        fallocate = SYS_fallocate
        fanotify_init = SYS_fanotify_init
        fchdir = SYS_fchdir
        fchmod = SYS_fchmod
        fchmodat = SYS_fchmodat
        fchown = SYS_fchown
        fchownat = SYS_fchownat
        fcntl = SYS_fcntl
        fdatasync = SYS_fdatasync
        finit_module = SYS_finit_module
        flock = SYS_flock
        fsconfig = SYS_fsconfig
        fsetxattr = SYS_fsetxattr
        fsmount = SYS_fsmount
        fsopen = SYS_fsopen
        fspick = SYS_fspick
        fstat = SYS_fstat
        fsync = SYS_fsync
        ftruncate = SYS_ftruncate
        futex = SYS_futex
        get_robust_list = SYS_get_robust_list
        getcwd = SYS_getcwd
        getdents64 = SYS_getdents64
        getegid = SYS_getegid
        geteuid = SYS_geteuid
        getgid = SYS_getgid
        getpeername = SYS_getpeername
        getpid = SYS_getpid
        getppid = SYS_getppid
        getrandom = SYS_getrandom
        getresgid = SYS_getresgid
        getresuid = SYS_getresuid
        getsockname = SYS_getsockname
        getsockopt = SYS_getsockopt
        gettid = SYS_gettid
        getuid = SYS_getuid
        init_module = SYS_init_module
        inotify_init1 = SYS_inotify_init1
        io_setup = SYS_io_setup
        io_uring_enter = SYS_io_uring_enter
        io_uring_register = SYS_io_uring_register
        io_uring_setup = SYS_io_uring_setup
        ioctl = SYS_ioctl
        ioprio_set = SYS_ioprio_set
        kcmp = SYS_kcmp
        kexec_load = SYS_kexec_load
        keyctl = SYS_keyctl
        kill = SYS_kill
        landlock_add_rule = SYS_landlock_add_rule
        landlock_create_ruleset = SYS_landlock_create_ruleset
        landlock_restrict_self = SYS_landlock_restrict_self
        linkat = SYS_linkat
        listen = SYS_listen
        lseek = SYS_lseek
        madvise = SYS_madvise
        membarrier = SYS_membarrier
        memfd_create = SYS_memfd_create
        memfd_secret = SYS_memfd_secret
        migrate_pages = SYS_migrate_pages
        mkdirat = SYS_mkdirat
        mknodat = SYS_mknodat
        mlock = SYS_mlock
        mlockall = SYS_mlockall
        mmap = SYS_mmap
        mount = SYS_mount
        mount_setattr = SYS_mount_setattr
        move_mount = SYS_move_mount
        move_pages = SYS_move_pages
        mprotect = SYS_mprotect
        mq_open = SYS_mq_open
        mremap = SYS_mremap
        msgget = SYS_msgget
        munlock = SYS_munlock
        munmap = SYS_munmap
        name_to_handle_at = SYS_name_to_handle_at
        newfstatat = SYS_newfstatat
        open_by_handle_at = SYS_open_by_handle_at
        open_tree = SYS_open_tree
        openat = SYS_openat
        openat2 = SYS_openat2
        perf_event_open = SYS_perf_event_open
        personality = SYS_personality
        pidfd_getfd = SYS_pidfd_getfd
        pidfd_open = SYS_pidfd_open
        pidfd_send_signal = SYS_pidfd_send_signal
        pipe2 = SYS_pipe2
        pivot_root = SYS_pivot_root
        pkey_mprotect = SYS_pkey_mprotect
        ppoll = SYS_ppoll
        prctl = SYS_prctl
        pread64 = SYS_pread64
        preadv = SYS_preadv
        prlimit64 = SYS_prlimit64
        process_madvise = SYS_process_madvise
        process_mrelease = SYS_process_mrelease
        process_vm_readv = SYS_process_vm_readv
        process_vm_writev = SYS_process_vm_writev
        ptrace = SYS_ptrace
        pwrite64 = SYS_pwrite64
        pwritev = SYS_pwritev
        pwritev2 = SYS_pwritev2
        quotactl = SYS_quotactl
        read = SYS_read
        readlinkat = SYS_readlinkat
        readv = SYS_readv
        recvfrom = SYS_recvfrom
        recvmmsg = SYS_recvmmsg
        recvmsg = SYS_recvmsg
        remap_file_pages = SYS_remap_file_pages
        renameat2 = SYS_renameat2
        request_key = SYS_request_key
        restart_syscall = SYS_restart_syscall
        rseq = SYS_rseq
        rt_sigaction = SYS_rt_sigaction
        rt_sigprocmask = SYS_rt_sigprocmask
        rt_sigqueueinfo = SYS_rt_sigqueueinfo
        rt_sigreturn = SYS_rt_sigreturn
        rt_tgsigqueueinfo = SYS_rt_tgsigqueueinfo
        sched_getaffinity = SYS_sched_getaffinity
        sched_setaffinity = SYS_sched_setaffinity
        sched_setattr = SYS_sched_setattr
        sched_setparam = SYS_sched_setparam
        sched_setscheduler = SYS_sched_setscheduler
        seccomp = SYS_seccomp
        semget = SYS_semget
        sendfile = SYS_sendfile
        sendmmsg = SYS_sendmmsg
        sendmsg = SYS_sendmsg
        sendto = SYS_sendto
        set_robust_list = SYS_set_robust_list
        set_tid_address = SYS_set_tid_address
        setfsuid = SYS_setfsuid
        setgid = SYS_setgid
        setgroups = SYS_setgroups
        sethostname = SYS_sethostname
        setitimer = SYS_setitimer
        setns = SYS_setns
        setpgid = SYS_setpgid
        setpriority = SYS_setpriority
        setregid = SYS_setregid
        setresgid = SYS_setresgid
        setresuid = SYS_setresuid
        setreuid = SYS_setreuid
        setrlimit = SYS_setrlimit
        setsid = SYS_setsid
        setsockopt = SYS_setsockopt
        settimeofday = SYS_settimeofday
        setuid = SYS_setuid
        setxattr = SYS_setxattr
        shmat = SYS_shmat
        shmget = SYS_shmget
        shutdown = SYS_shutdown
        sigaltstack = SYS_sigaltstack
        signalfd4 = SYS_signalfd4
        socket = SYS_socket
        socketpair = SYS_socketpair
        splice = SYS_splice
        statfs = SYS_statfs
        statx = SYS_statx
        swapon = SYS_swapon
        symlinkat = SYS_symlinkat
        sync_file_range = SYS_sync_file_range
        syslog = SYS_syslog
        tee = SYS_tee
        tgkill = SYS_tgkill
        timer_create = SYS_timer_create
        timerfd_create = SYS_timerfd_create
        tkill = SYS_tkill
        truncate = SYS_truncate
        umount2 = SYS_umount2
        uname = SYS_uname
        unlinkat = SYS_unlinkat
        unshare = SYS_unshare
        userfaultfd = SYS_userfaultfd
        utimensat = SYS_utimensat
        vhangup = SYS_vhangup
        vmsplice = SYS_vmsplice
        wait4 = SYS_wait4
        waitid = SYS_waitid
        write = SYS_write
        writev = SYS_writev;
    x86_64:
        access = SYS_access
        arch_prctl = SYS_arch_prctl
        chmod = SYS_chmod
        creat = SYS_creat
        dup2 = SYS_dup2
        fork = SYS_fork
        getrlimit = SYS_getrlimit
        ioperm = SYS_ioperm
        iopl = SYS_iopl
        link = SYS_link
        mkdir = SYS_mkdir
        modify_ldt = SYS_modify_ldt
        open = SYS_open
        pipe = SYS_pipe
        poll = SYS_poll
        readlink = SYS_readlink
        rename = SYS_rename
        stat = SYS_stat
        symlink = SYS_symlink
        unlink = SYS_unlink
        vfork = SYS_vfork;
}

/// The number of a call; `None` for a name that is not in the table.
pub fn number(name: &str) -> Option<Number> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a number on this processor, for the log line about a violation.
pub fn name(number: c_long) -> Option<&'static str> {
    TABLE.iter().find(|(_, known)| *known == Number::Is(number)).map(|(name, _)| *name)
}
