use core::time::Duration;

use crate::proto::{Decoder, Encoder, HeartBeatMonitor, Lenience, Limits, Outbox, Time, Version};

/// What both sides of a connection keep: the codec, what is to be written, the heart-beats.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) outbox: Outbox,
    pub(super) heart_beat: HeartBeatMonitor,
    eols_counted_since: Time,
}

impl Link {
    /// Before the handshake.
    pub(super) fn new(limits: Limits, lenience: Lenience, encoder: Encoder, now: Time) -> Self {
        Self {
            decoder: Decoder::new(limits).with_lenience(lenience),
            encoder,
            outbox: Outbox::new(),
            heart_beat: HeartBeatMonitor::idle(now),
            eols_counted_since: now,
        }
    }

    pub(super) fn wrote(&mut self, now: Time) {
        self.heart_beat.wrote(now);
    }

    pub(super) fn read(&mut self, now: Time) {
        self.heart_beat.read(now);
        if now.saturating_sub(self.eols_counted_since) >= Duration::from_secs(1) {
            self.eols_counted_since = now;
            self.decoder.forgive_eols();
        }
    }

    /// From the next frame on, both ways.
    pub(super) fn agree_on(&mut self, version: Version) {
        self.decoder.set_version(version);
        self.encoder = self.encoder.with_version(version);
    }
}
