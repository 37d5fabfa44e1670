//! beacon-edge: a web-beacon edge server. See `docs/architecture.md` for the map of the rooms.

pub mod ledger;
pub mod ring;
