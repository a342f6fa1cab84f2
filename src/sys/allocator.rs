//! The allocator of `papayad-session`, of which two processes run for each client.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// From this size on a piece of memory is a mapping of its own.
const LARGE: usize = 32 << 10;
/// The smallest page there is: what asks for a greater alignment is malloc's.
const PAGE: usize = 4 << 10;

/// malloc, but with large buffers apart from its heap: fresh from the kernel, they take no memory before
/// they are used, and none when they are gone. malloc's own heap is a mapping of a megabyte, since
/// brk(2) does nothing (`policy::launcher`), and it would take them from there and wipe them.
pub struct LargeBuffersApart;

const fn is_apart(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

// SAFETY: what is not apart is the system's allocator's alone, with the caller's own promises. What is
// apart is a whole mapping of mmap(2), private, of the size that was asked for, at a page and so
// aligned for it; the layout tells the two from each other, and is the same when it is given back.
unsafe impl GlobalAlloc for LargeBuffersApart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new mapping, at a place that the kernel chooses, overlaps nothing.
        unsafe {
            if !is_apart(layout) {
                return System.alloc(layout);
            }
            match libc::mmap(ptr::null_mut(), layout.size(), access, kind, -1, 0) {
                libc::MAP_FAILED => ptr::null_mut(),
                new => new.cast(),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the implementation; a new mapping is zero.
        unsafe { if is_apart(layout) { self.alloc(layout) } else { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises hold for both layouts; the two pieces do not overlap, and each
        // is at least as long as what is copied.
        unsafe {
            let wanted = Layout::from_size_align_unchecked(size, layout.align());
            if !is_apart(layout) && !is_apart(wanted) {
                return System.realloc(old, layout, size);
            }
            let new = self.alloc(wanted);
            if !new.is_null() {
                ptr::copy_nonoverlapping(old, new, layout.size().min(size));
                self.dealloc(old, layout);
            }
            new
        }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: what is apart is the whole of a mapping that nobody uses any more.
        unsafe {
            if is_apart(layout) {
                libc::munmap(old.cast(), layout.size());
            } else {
                System.dealloc(old, layout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_its_content_over_the_size_from_which_it_is_apart_and_back() {
        let of = |size, align| Layout::from_size_align(size, align).unwrap();
        // SAFETY: each pointer is used with the layout that it was made for, and within its size.
        unsafe {
            let mut layout = of(10, 8);
            let mut buffer = LargeBuffersApart.alloc(layout);
            buffer.copy_from(b"0123456789".as_ptr(), 10);
            for size in [100, LARGE - 1, LARGE, 3 * LARGE, LARGE + 1, LARGE - 1, 50, 2 * LARGE] {
                buffer = LargeBuffersApart.realloc(buffer, layout, size);
                layout = of(size, 8);
                buffer.add(size - 1).write(b'!');
                assert_eq!(std::slice::from_raw_parts(buffer, 10), b"0123456789");
            }
            LargeBuffersApart.dealloc(buffer, layout);
            for layout in [of(LARGE, 8), of(LARGE - 1, 8)] {
                let zeroed = LargeBuffersApart.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(zeroed, layout.size()).iter().all(|b| *b == 0));
                assert!(zeroed.addr() % PAGE == 0 || layout.size() < LARGE);
                LargeBuffersApart.dealloc(zeroed, layout);
            }
            // An alignment that no mapping has of itself is malloc's.
            let layout = of(LARGE, 4 * PAGE);
            let aligned = LargeBuffersApart.alloc(layout);
            assert_eq!(aligned.addr() % (4 * PAGE), 0);
            LargeBuffersApart.dealloc(aligned, layout);
            // More than there is is no memory, and no panic.
            assert!(LargeBuffersApart.alloc(of(1 << 62, 8)).is_null());
        }
    }
}
