//! Waiting for what another task does: until something is so, or until there is none of something. There is one thread, so
//! that nothing changes between a look and the wait after it.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Who waits until something is so.
#[derive(Debug, Default)]
pub(crate) struct Changes(Notify);

impl Changes {
    /// It may be so now.
    pub(crate) fn tell(&self) {
        self.0.notify_waiters();
    }

    /// Resolves with what `look` finds. It looks at once, and again whenever there may be something.
    pub(crate) async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let told = self.0.notified();
            if let Some(found) = look() {
                return found;
            }
            told.await;
        }
    }
}

/// How many of something there are, for who waits until there are none.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: Cell<usize>,
    fewer: Changes,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Tally>);

impl Tally {
    pub(crate) fn one(self: &Rc<Self>) -> Counted {
        self.count.set(self.count.get() + 1);
        Counted(Rc::clone(self))
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Resolves when there are none.
    pub(crate) async fn none(&self) {
        self.fewer.until(|| (self.count.get() == 0).then_some(())).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.fewer.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_waited_for() {
        let tally = Rc::new(Tally::default());
        let (first, second) = (tally.one(), tally.one());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let left = runtime.block_on(async {
            tokio::join!(tally.none(), async {
                drop(first);
                tokio::task::yield_now().await;
                let left = tally.count();
                drop(second);
                left
            })
        });
        assert_eq!((left.1, tally.count()), (1, 0));
    }

    #[test]
    fn what_is_so_already_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(Changes::default().until(|| Some(7))), 7);
    }
}
