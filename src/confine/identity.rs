//! Who a process is, and that it can never be root again.
