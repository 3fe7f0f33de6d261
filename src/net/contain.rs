//! A mistake of ours that panics while one connection is served, kept from those that are served by the same task.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does what concerns one connection only; `None`: it panicked, which is logged here and ends nothing else. The caller
/// lets go of that connection and of what else `serve` may have left half done. Costs nothing while there is no panic.
pub fn contained<T>(what: &'static str, serve: impl FnOnce() -> T) -> Option<T> {
    let served = catch_unwind(AssertUnwindSafe(serve));
    if served.is_err() {
        tracing::error!("{what} panicked; this is a mistake of ours, please report it");
    }
    served.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_goes_no_further() {
        assert_eq!(contained("a sum", || 1 + 1), Some(2));
        assert_eq!(
            contained("a mistake", || -> u8 { panic!("on purpose") }),
            None
        );
    }
}
