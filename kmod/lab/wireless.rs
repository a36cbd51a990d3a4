// SPDX-License-Identifier: GPL-2.0-only

//! The qdisc: two bands of packets that wait, one packet on the link.

use crate::link::{Band, Errors, Link, Passage};
use crate::qdisc::{self, Qdisc, Queue, Skb};

/// `TC_PRIO_INTERACTIVE` of `linux/pkt_sched.h`: from here on a packet goes first. The low four bits count (`TC_PRIO_MAX`).
const TC_PRIO_INTERACTIVE: u32 = 6;
const TC_PRIO_MAX: u32 = 15;

/// Packets that may wait in the band of priority: more than anyone honest sends there, and an end to memory.
const PRIORITY_LIMIT: u32 = 16_384;

/// What `TCA_OPTIONS` asks for: its fields in this order, octets in the host's order, four octets of padding last.
struct Options {
    /// Bits a second.
    rate: u64,
    /// 2^-16 bits; 0: no errors.
    mean_gap: u64,
    seed: u64,
    /// Packets of the normal band, that on the link included.
    limit: u32,
}

impl Options {
    /// Octets of the attribute.
    const LEN: usize = 32;

    fn parse(octets: &[u8]) -> Option<Self> {
        let (octets, []) = octets.split_first_chunk::<{ Self::LEN }>()? else {
            return None;
        };
        let word = |at: usize| Some(u64::from_ne_bytes(*octets.get(at..)?.first_chunk()?));
        Some(Options {
            rate: word(0)?,
            mean_gap: word(8)?,
            seed: word(16)?,
            limit: u32::from_ne_bytes(*octets.get(24..)?.first_chunk()?),
        })
    }

    fn words(&self) -> [u64; 3] {
        [self.rate, self.mean_gap, self.seed]
    }
}

/// In packets but for the second.
#[derive(Default)]
struct Counters {
    /// Sent over the link, the corrupted among them.
    sent: u64,
    sent_octets: u64,
    corrupted: u64,
    /// Not taken: their band was full.
    overflowed: u64,
    /// Of those sent, how many were of the band of priority.
    prioritised: u64,
}

/// A packet on the link.
struct OnAir {
    skb: Skb,
    band: Band,
    passage: Passage,
}

/// One link, one way.
pub(crate) struct Wireless {
    options: Options,
    /// The link's time zero, on the kernel's clock.
    origin: u64,
    link: Link,
    priority: Queue,
    normal: Queue,
    on_air: Option<OnAir>,
    counters: Counters,
}

impl Wireless {
    /// A link as `TCA_OPTIONS` asks for, its time starting now; or what is wrong with them.
    pub(crate) fn new(options: &[u8]) -> Result<Self, &'static core::ffi::CStr> {
        let options = Options::parse(options)
            .ok_or(c"the options of a wireless link are 32 octets: rate, mean gap, seed, limit")?;
        let errors = Errors::new(options.mean_gap, options.seed)
            .ok_or(c"the mean gap between errors must be 1 to 2^40 bits, or 0 for none")?;
        let link = Link::new(options.rate, errors)
            .ok_or(c"the rate must be 1 to 10,000,000,000 bits a second")?;
        if options.limit == 0 {
            return Err(c"a link that holds no packet sends none");
        }
        Ok(Wireless {
            options,
            origin: qdisc::now(),
            link,
            priority: Queue::new(),
            normal: Queue::new(),
            on_air: None,
            counters: Counters::default(),
        })
    }

    /// Packets of the normal band it may hold.
    pub(crate) fn limit(&self) -> u32 {
        self.options.limit
    }

    fn now(&self) -> u64 {
        qdisc::now().saturating_sub(self.origin)
    }

    /// Takes a packet, or gives it back.
    pub(crate) fn enqueue(&mut self, sch: &Qdisc<'_>, mut skb: Skb) -> Result<(), Skb> {
        let first = skb.priority() & TC_PRIO_MAX >= TC_PRIO_INTERACTIVE;
        let on_air = matches!(&self.on_air, Some(on_air) if on_air.band == Band::Normal);
        let (queue, limit) = if first {
            (&mut self.priority, PRIORITY_LIMIT)
        } else {
            let limit = self.options.limit.saturating_sub(u32::from(on_air));
            (&mut self.normal, limit)
        };
        if queue.len() >= limit {
            self.counters.overflowed = self.counters.overflowed.saturating_add(1);
            return Err(skb);
        }
        skb.set_arrival(qdisc::now().saturating_sub(self.origin));
        sch.holds(&skb);
        queue.push(skb);
        Ok(())
    }

    /// The next packet that has left the link whole; if there is none yet, the timer is set for the next to leave.
    pub(crate) fn dequeue(&mut self, sch: &Qdisc<'_>) -> Option<Skb> {
        let now = self.now();
        loop {
            let on_air = match self.on_air.take() {
                Some(on_air) => on_air,
                None => self.start()?,
            };
            if on_air.passage.end > now {
                sch.wake_at(self.origin.saturating_add(on_air.passage.end));
                self.on_air = Some(on_air);
                return None;
            }
            self.count(&on_air);
            if !on_air.passage.corrupted {
                sch.gives(&on_air.skb);
                return Some(on_air.skb);
            }
            sch.loses(on_air.skb);
        }
    }

    /// Puts the next packet on the link.
    fn start(&mut self) -> Option<OnAir> {
        let band = self
            .link
            .choose(self.priority.first_arrival(), self.normal.first_arrival())?;
        let skb = match band {
            Band::Priority => self.priority.pop(),
            Band::Normal => self.normal.pop(),
        }?;
        let passage = self.link.send(skb.arrival(), skb.len());
        Some(OnAir { skb, band, passage })
    }

    fn count(&mut self, on_air: &OnAir) {
        let counters = &mut self.counters;
        let add = |counter: &mut u64, n: u64| *counter = counter.saturating_add(n);
        add(&mut counters.sent, 1);
        add(&mut counters.sent_octets, u64::from(on_air.skb.len()));
        add(&mut counters.corrupted, u64::from(on_air.passage.corrupted));
        add(
            &mut counters.prioritised,
            u64::from(on_air.band == Band::Priority),
        );
    }

    /// Loses all packets and starts the link's time anew. What was counted stays.
    pub(crate) fn reset(&mut self) {
        self.priority = Queue::new();
        self.normal = Queue::new();
        self.on_air = None;
        self.link.restart();
        self.origin = qdisc::now();
    }

    /// What `TCA_OPTIONS` shows: the options as they were given, then the counters.
    pub(crate) fn dump(&self) -> [u64; 9] {
        let [rate, mean_gap, seed] = self.options.words();
        let mut limit = [0; 8];
        if let Some(low) = limit.first_chunk_mut() {
            *low = self.options.limit.to_ne_bytes();
        }
        let counters = &self.counters;
        [
            rate,
            mean_gap,
            seed,
            u64::from_ne_bytes(limit),
            counters.sent,
            counters.sent_octets,
            counters.corrupted,
            counters.overflowed,
            counters.prioritised,
        ]
    }
}
