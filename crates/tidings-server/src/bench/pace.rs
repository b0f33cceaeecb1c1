//! When the next event of a run is sent, and by whom: at fixed times, or when another one arrived. It knows no sockets.

use super::{fleet::Fleet, stamp::Phase};

pub(super) struct Pace {
    /// Events a second at fixed times; otherwise so many are on their way at once.
    pub(super) rate: Option<f64>,
    pub(super) in_flight: usize,
    /// Events of one request.
    pub(super) batch: usize,
    pub(super) topics: usize,
    /// Deliveries of one event.
    pub(super) reach: u64,
    /// The next intended time.
    pub(super) next: u64,
    sent: usize,
    publisher: usize,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>, in_flight: usize, batch: usize, topics: usize, reach: u64, begin: u64) -> Pace {
        Pace { rate, in_flight, batch, topics, reach, next: begin, sent: 0, publisher: 0 }
    }

    /// Sends what is due.
    pub(super) fn send(&mut self, fleet: &mut Fleet, phase: Phase, until: u64) {
        loop {
            let now = fleet.now();
            let intended = if let Some(rate) = self.rate {
                if self.next > now || self.next >= until {
                    return;
                }
                let intended = self.next;
                // Whoever is due waits for a publisher that is free; it was due all the same.
                if self.pick(fleet).is_none() {
                    return;
                }
                self.next += (1e9 * self.batch as f64 / rate) as u64;
                intended
            } else {
                if !self.may_send(fleet) {
                    return;
                }
                now
            };
            let Some(publisher) = self.pick(fleet) else { return };
            fleet.publish(publisher, self.sent % self.topics, phase, intended);
            self.publisher = publisher + 1;
            self.sent += 1;
        }
    }

    /// Whether something that was to be sent before then is not sent. Leaving it out would leave out just those who waited.
    pub(super) fn owes(&self, until: u64) -> bool {
        self.rate.is_some() && self.next < until
    }

    /// One topic has one publisher, so that its events have an order.
    fn pick(&self, fleet: &Fleet) -> Option<usize> {
        if self.topics > 1 {
            let publisher = self.sent % self.topics % fleet.publishers();
            return fleet.is_free(publisher).then_some(publisher);
        }
        fleet.free_publisher(self.publisher)
    }

    fn may_send(&self, fleet: &Fleet) -> bool {
        if self.reach == 0 {
            return true;
        }
        let published = fleet.counts.published + fleet.counts.warm_up_published;
        let delivered = fleet.deliveries() + fleet.warm_up_deliveries();
        published * self.reach < delivered + self.in_flight as u64 * self.reach
    }
}
