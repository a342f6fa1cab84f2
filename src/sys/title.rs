//! Process titles: what `ps` shows, so that an administrator sees role, name and address.
//!
//! Linux has no call for it: the kernel shows the memory in which the arguments were passed, so
//! the title is written over them (as setproctitle(3) of other packages does). FreeBSD has the
//! call. Written only by the process itself.

#[cfg(target_os = "linux")]
pub use linux::{set, stack_top};

/// Sets the title that ps(1) shows to `papayad: TITLE`.
#[cfg(not(target_os = "linux"))]
pub fn set(title: &str) {
    if let Ok(text) = std::ffi::CString::new(format!("papayad: {title}")) {
        // SAFETY: both strings end with NUL; "-%s" takes exactly one string (the "-" keeps the
        // program's name out of it, setproctitle(3)).
        unsafe { libc::setproctitle(c"-%s".as_ptr(), text.as_ptr()) };
    }
}

#[cfg(target_os = "linux")]
mod linux {
    #[cfg(target_env = "gnu")]
    use std::ffi::{c_char, c_int};
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

    static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    static ROOM: AtomicUsize = AtomicUsize::new(0);
    /// A child that was forked has no environment either, and writes nothing to know it.
    static CLEARED: AtomicBool = AtomicBool::new(false);

    /// Notes, before `main`, where arguments and environment stand. glibc passes argc, argv and
    /// envp to the functions of `.init_array`; other C libraries do not, and there is no title there.
    #[cfg(target_env = "gnu")]
    #[used]
    #[unsafe(link_section = ".init_array")]
    static NOTE: extern "C" fn(c_int, *const *mut c_char, *const *mut c_char) = note;

    #[cfg(target_env = "gnu")]
    extern "C" fn note(argc: c_int, argv: *const *mut c_char, envp: *const *mut c_char) {
        if argc < 1 || argv.is_null() || envp.is_null() {
            return;
        }
        // SAFETY: the kernel and the C library guarantee argc valid, NUL-terminated strings in argv
        // and a NULL-terminated list of them in envp; the kernel lays them out behind each other
        // on this process's stack (checked here: only neighbours are counted), which is writable.
        unsafe {
            let first = (*argv).cast::<u8>();
            let mut end = first;
            let strings = (0..argc as usize).map(|i| *argv.add(i));
            let variables = (0..).map(|i| *envp.add(i)).take_while(|s| !s.is_null());
            for string in strings.chain(variables).map(|s| s.cast::<u8>()) {
                if string == end {
                    end = string.add(libc::strlen(string.cast()) + 1);
                }
            }
            ROOM.store(end.offset_from(first) as usize, Ordering::Relaxed);
            START.store(first, Ordering::Relaxed);
        }
    }

    /// The address of the arguments, which the kernel puts at the top of the stack that it makes;
    /// none where the C library does not say it.
    pub fn stack_top() -> Option<usize> {
        let start = START.load(Ordering::Relaxed);
        (!start.is_null()).then(|| start.addr())
    }

    /// Sets the title that ps(1) shows to `papayad: TITLE`, cut to the room that arguments
    /// and environment had: who starts a process that wants a long title passes it a long argument.
    /// The environment is gone for this process afterwards.
    pub fn set(title: &str) {
        let start = START.load(Ordering::Relaxed);
        let room = ROOM.load(Ordering::Relaxed);
        if start.is_null() || room < 2 {
            return;
        }
        if !CLEARED.load(Ordering::Relaxed) {
            CLEARED.store(true, Ordering::Relaxed);
            // SAFETY: no other thread exists that could read the environment meanwhile.
            unsafe { libc::clearenv() };
        }
        // SAFETY: `note` stored the start and length of the memory that the kernel filled with
        // arguments and environment; it lives as long as the process, nothing points into the
        // environment any more (above), and the roles have read their arguments before.
        let area = unsafe { std::slice::from_raw_parts_mut(start, room) };
        area.fill(0);
        let text = b"papayad: ".iter().chain(title.as_bytes());
        for (slot, byte) in area[..room - 1].iter_mut().zip(text) {
            *slot = *byte;
        }
    }
}
