// SPDX-License-Identifier: GPL-2.0-only
//! What a flow has seen and done.

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident $name:literal,)*) => {
        /// What a flow has seen and done.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters { $($(#[$doc])* pub $field: u64,)* }

        impl Counters {
            /// Their names, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// Their values.
            pub const fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field,)*]
            }

            /// Adds another flow's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// Segments cached.
    cached "cached",
    /// Retransmissions that a duplicate acknowledgement asked for.
    by_duplicate "retransmitted-duplicate",
    /// Retransmissions that a SACK block asked for.
    by_sack "retransmitted-sack",
    /// Retransmissions by the timer.
    by_timer "retransmitted-timer",
    /// Retransmissions after silence.
    by_persist "retransmitted-persist",
    /// Acknowledgements hidden from the sender.
    suppressed "suppressed",
    /// Segments that the sender itself sent again.
    sender "sender-retransmissions",
    /// Segments not kept: as many were kept as may be, or memory was refused.
    full "full",
    /// Segments not kept, for the link's queue was full: congestion stays visible.
    queue_full "queue-full",
    /// Segments let go because their ESP number nears the end of the peer's replay window.
    too_old "too-old",
    /// Segments given up after as many retransmissions as one may have.
    gave_up "gave-up",
    /// Acknowledgements of what never was sent.
    ahead "acks-ahead",
}
