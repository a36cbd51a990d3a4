// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is due when: one deadline a key.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Deadlines by key, on the monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K> {
    order: BTreeSet<(Duration, K)>,
    at: HashMap<K, Duration>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            order: BTreeSet::new(),
            at: HashMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(crate) fn set(&mut self, key: K, at: Duration) {
        self.cancel(key);
        self.at.insert(key, at);
        self.order.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(at) = self.at.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    pub(crate) fn at(&self, key: K) -> Option<Duration> {
        self.at.get(&key).copied()
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|&(at, _)| at)
    }

    /// Takes out one that is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_out_in_order_and_once() {
        let mut timers = Timers::default();
        let ms = Duration::from_millis;
        timers.set('b', ms(20));
        timers.set('a', ms(30));
        timers.set('c', ms(10));
        timers.set('a', ms(5));
        timers.cancel('c');
        assert_eq!(timers.next(), Some(ms(5)));
        assert_eq!(timers.pop(ms(4)), None);
        assert_eq!(timers.pop(ms(20)), Some('a'));
        assert_eq!(timers.pop(ms(20)), Some('b'));
        assert_eq!(timers.pop(ms(20)), None);
        assert_eq!(timers.next(), None);
    }
}
